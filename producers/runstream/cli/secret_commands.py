"""`runstream project|projectgroup secret|variable`: secrets and variables of projects and of groups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Generic, NamedTuple, TypeAlias, TypeVar

from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.config_inputs import Flag, read_input, warn_of_readers
from runstream.cli.finding import PastPoint, position_text
from runstream.cli.near_names import Names, near_names, paths_near
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say, warn
from runstream.cli.project_commands import NO_GROUP, NO_PROJECT
from runstream.cli.variable_files import secret_data, variable_values, when_text
from runstream.client import Client, NewVariableValue, SecretView, VariableView
from runstream.client.secrets import Secrets, Variables

Project: TypeAlias = Annotated[str, Parameter(help="The project's path, such as org/acme/web/site, or its id.")]
Group: TypeAlias = Annotated[
    str, Parameter(name="--projectgroup", help="The group's path, such as org/acme/web, or its id.")
]
Name: TypeAlias = Annotated[
    str, Parameter(name=["--name", "-n"], help="Letters, digits and single dashes, starting with a letter.")
]
SecretFile: TypeAlias = Annotated[
    Path,
    Parameter(
        name=["--file", "-f"],
        allow_leading_hyphen=True,
        help="A YAML file that maps keys to texts; `-` is stdin. Encrypted before it is stored.",
    ),
]
VariableFile: TypeAlias = Annotated[
    Path,
    Parameter(
        name=["--file", "-f"],
        allow_leading_hyphen=True,
        help="A YAML list of secret_name, secret_var and `when`, as in a run; `-` is stdin.",
    ),
]
Rename: TypeAlias = Annotated[str, Parameter(help="Its new name.")]
Tree: TypeAlias = Annotated[Flag, Parameter(help="Also those of the groups above it, which it inherits.")]
C = TypeVar("C")
_SECRETS: dict[Column, Callable[[SecretView], Cell]] = {
    Column("NAME"): lambda one: one.name,
    Column("ID"): lambda one: one.id,
    Column("OF", wraps=True, drop=1): lambda one: one.parent_path,
}
_VALUES: dict[Column, Callable[[_Row], Cell]] = {
    Column("NAME"): lambda row: row.name,
    Column("SECRET"): lambda row: row.secret,
    Column("WHEN", wraps=True): lambda row: row.when,
    Column("SECRET OF", wraps=True, drop=1): lambda row: row.secret_of,
    Column("OF", wraps=True, drop=2): lambda row: row.of,
}


class _Row(NamedTuple):
    """A value of a variable, as a row."""

    name: str
    secret: str
    when: str
    secret_of: str
    of: str


class _Place(NamedTuple, Generic[C]):
    """What has secrets or variables, and the client's operations on these."""

    ref: str
    missing: str
    """The code of the error for a project or group that does not exist."""
    listing: str
    """The command that lists them."""
    calls: Callable[[Client], C]


def _secrets_of_project(ref: str) -> _Place[Secrets]:
    return _Place(ref, NO_PROJECT, f"project secret list --project {ref}", lambda client: client.secrets)


def _secrets_of_group(ref: str) -> _Place[Secrets]:
    return _Place(ref, NO_GROUP, f"projectgroup secret list --projectgroup {ref}", lambda client: client.group_secrets)


def _variables_of_project(ref: str) -> _Place[Variables]:
    return _Place(ref, NO_PROJECT, f"project variable list --project {ref}", lambda client: client.variables)


def _variables_of_group(ref: str) -> _Place[Variables]:
    return _Place(
        ref, NO_GROUP, f"projectgroup variable list --projectgroup {ref}", lambda client: client.group_variables
    )


def list_project_secrets(*, project: Project, tree: Tree = False, at: PastPoint = "", output: Output = "table") -> int:
    """List the secrets of a project. Their texts are never shown."""
    return _list_secrets(_secrets_of_project(project), tree=tree, at=at, output=output)


def create_project_secret(*, project: Project, name: Name, file: SecretFile, output: Output = "table") -> int:
    """Create a secret of a project."""
    return _create_secret(_secrets_of_project(project), name, file, output)


def update_project_secret(
    *, project: Project, name: Name, file: SecretFile, new_name: Rename = "", output: Output = "table"
) -> int:
    """Replace the texts of a secret of a project."""
    return _update_secret(_secrets_of_project(project), name, file, new_name, output)


def delete_project_secret(*, project: Project, name: Name) -> int:
    """Delete a secret of a project."""
    return _delete_secret(_secrets_of_project(project), name)


def list_group_secrets(*, group: Group, tree: Tree = False, at: PastPoint = "", output: Output = "table") -> int:
    """List the secrets of a project group. Their texts are never shown."""
    return _list_secrets(_secrets_of_group(group), tree=tree, at=at, output=output)


def create_group_secret(*, group: Group, name: Name, file: SecretFile, output: Output = "table") -> int:
    """Create a secret of a project group, for all projects in it."""
    return _create_secret(_secrets_of_group(group), name, file, output)


def update_group_secret(
    *, group: Group, name: Name, file: SecretFile, new_name: Rename = "", output: Output = "table"
) -> int:
    """Replace the texts of a secret of a project group."""
    return _update_secret(_secrets_of_group(group), name, file, new_name, output)


def delete_group_secret(*, group: Group, name: Name) -> int:
    """Delete a secret of a project group."""
    return _delete_secret(_secrets_of_group(group), name)


def list_project_variables(
    *, project: Project, tree: Tree = False, at: PastPoint = "", output: Output = "table"
) -> int:
    """List the variables of a project, with a row for each value."""
    return _list_variables(_variables_of_project(project), tree=tree, at=at, output=output)


def create_project_variable(*, project: Project, name: Name, file: VariableFile, output: Output = "table") -> int:
    """Create a variable of a project."""
    return _create_variable(_variables_of_project(project), name, file, output)


def update_project_variable(
    *, project: Project, name: Name, file: VariableFile, new_name: Rename = "", output: Output = "table"
) -> int:
    """Replace the values of a variable of a project."""
    return _update_variable(_variables_of_project(project), name, file, new_name, output)


def delete_project_variable(*, project: Project, name: Name) -> int:
    """Delete a variable of a project."""
    return _delete_variable(_variables_of_project(project), name)


def list_group_variables(*, group: Group, tree: Tree = False, at: PastPoint = "", output: Output = "table") -> int:
    """List the variables of a project group, with a row for each value."""
    return _list_variables(_variables_of_group(group), tree=tree, at=at, output=output)


def create_group_variable(*, group: Group, name: Name, file: VariableFile, output: Output = "table") -> int:
    """Create a variable of a project group, for all projects in it."""
    return _create_variable(_variables_of_group(group), name, file, output)


def update_group_variable(
    *, group: Group, name: Name, file: VariableFile, new_name: Rename = "", output: Output = "table"
) -> int:
    """Replace the values of a variable of a project group."""
    return _update_variable(_variables_of_group(group), name, file, new_name, output)


def delete_group_variable(*, group: Group, name: Name) -> int:
    """Delete a variable of a project group."""
    return _delete_variable(_variables_of_group(group), name)


def _list_secrets(place: _Place[Secrets], *, tree: bool, at: str, output: Output) -> int:
    async def work(client: Client) -> None:
        async with near_names(place.ref, place.missing, paths_near(client, place.ref)):
            found = await place.calls(client).list(place.ref, tree=tree, at=position_text(at))
        if output == "json":
            print_json(found)
        else:
            print_items(found, _SECRETS, f"{place.ref} has no secrets")

    return with_client(work)


def _create_secret(place: _Place[Secrets], name: str, file: Path, output: Output) -> int:
    data = _secret_file(file)

    async def work(client: Client) -> None:
        async with near_names(place.ref, place.missing, paths_near(client, place.ref)):
            made = await place.calls(client).create(place.ref, name, data)
        _print_done(made, output, f"secret {made.name} of {place.ref} is created")

    return with_client(work)


def _update_secret(place: _Place[Secrets], name: str, file: Path, new_name: str, output: Output) -> int:
    data = _secret_file(file)

    async def work(client: Client) -> None:
        async with _near(client, place, name, "secretDoesNotExist"):
            changed = await place.calls(client).update(place.ref, name, data, new_name=new_name)
        _print_done(changed, output, f"secret {changed.name} of {place.ref} is changed")

    return with_client(work)


def _delete_secret(place: _Place[Secrets], name: str) -> int:
    async def work(client: Client) -> None:
        async with _near(client, place, name, "secretDoesNotExist"):
            await place.calls(client).delete(place.ref, name)
        say(f"secret {name} of {place.ref} is deleted")

    return with_client(work)


def _list_variables(place: _Place[Variables], *, tree: bool, at: str, output: Output) -> int:
    async def work(client: Client) -> None:
        async with near_names(place.ref, place.missing, paths_near(client, place.ref)):
            found = await place.calls(client).list(place.ref, tree=tree, at=position_text(at))
        if output == "json":
            print_json(found)
        else:
            print_items([row for one in found for row in _rows(one)], _VALUES, f"{place.ref} has no variables")

    return with_client(work)


def _rows(variable: VariableView) -> list[_Row]:
    return [
        _Row(
            variable.name,
            f"{value.secret_name}.{value.secret_var}",
            when_text(value.when),
            value.matching_secret_parent_path or "missing",
            variable.parent_path,
        )
        for value in variable.values
    ]


def _create_variable(place: _Place[Variables], name: str, file: Path, output: Output) -> int:
    values = _variable_file(file)

    async def work(client: Client) -> None:
        async with near_names(place.ref, place.missing, paths_near(client, place.ref)):
            made = await place.calls(client).create(place.ref, name, values)
        _warn_of_missing(made)
        _print_done(made, output, f"variable {made.name} of {place.ref} is created")

    return with_client(work)


def _update_variable(place: _Place[Variables], name: str, file: Path, new_name: str, output: Output) -> int:
    values = _variable_file(file)

    async def work(client: Client) -> None:
        async with _near(client, place, name, "variableDoesNotExist"):
            changed = await place.calls(client).update(place.ref, name, values, new_name=new_name)
        _warn_of_missing(changed)
        _print_done(changed, output, f"variable {changed.name} of {place.ref} is changed")

    return with_client(work)


def _delete_variable(place: _Place[Variables], name: str) -> int:
    async def work(client: Client) -> None:
        async with _near(client, place, name, "variableDoesNotExist"):
            await place.calls(client).delete(place.ref, name)
        say(f"variable {name} of {place.ref} is deleted")

    return with_client(work)


@asynccontextmanager
async def _near(
    client: Client, place: _Place[Secrets] | _Place[Variables], name: str, code: str
) -> AsyncIterator[None]:
    """Add the closest project, group, secret or variable to the hint of an error that one does not exist."""

    async def names() -> list[str]:
        return [one.name for one in await place.calls(client).list(place.ref)]

    async with (
        near_names(place.ref, place.missing, paths_near(client, place.ref)),
        near_names(name, code, Names(names, place.listing)),
    ):
        yield


def _print_done(thing: SecretView | VariableView, output: Output, text: str) -> None:
    if output == "json":
        print_json(thing)
    else:
        say(f"{text}\nid  {thing.id}")


def _warn_of_missing(variable: VariableView) -> None:
    """Warn of each value whose secret does not exist: it would leave the variable unset."""
    for value in variable.values:
        if not value.matching_secret_parent_path:
            warn(f"warning: there is no secret {value.secret_name} yet: where it is needed, the variable stays unset")


def _secret_file(file: Path) -> dict[str, str]:
    if str(file) != "-":
        warn_of_readers([file])
    return secret_data(read_input(file), _source(file))


def _variable_file(file: Path) -> list[NewVariableValue]:
    return variable_values(read_input(file), _source(file))


def _source(file: Path) -> str:
    return "stdin" if str(file) == "-" else str(file)
