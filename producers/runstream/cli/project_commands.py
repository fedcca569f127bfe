"""`runstream projectgroup` and `runstream project`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.config_inputs import Flag, read_input, warn_of_readers
from runstream.cli.confirming import require_confirmed
from runstream.cli.finding import PastPoint, position_text
from runstream.cli.near_names import near_names, paths_near, remote_source_names
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say
from runstream.client import (
    Client,
    NewProject,
    NewRepository,
    ProjectChanges,
    ProjectGroupChanges,
    ProjectGroupView,
    ProjectView,
)
from runstream.client.config_types import Visibility
from runstream.errors import BadRequestError

GroupRef: TypeAlias = Annotated[str, Parameter(help="The group's path, such as org/acme/web, or its id.")]
ProjectRef: TypeAlias = Annotated[str, Parameter(help="The project's path, such as org/acme/web/site, or its id.")]
Name: TypeAlias = Annotated[
    str, Parameter(name=["--name", "-n"], help="Letters, digits and single dashes, starting with a letter.")
]
NewName: TypeAlias = Annotated[str | None, Parameter(name=["--name", "-n"], help="Its new name.")]
Parent: TypeAlias = Annotated[
    str, Parameter(help="Path or id of the group that it is in: user/alice, org/acme or org/acme/web.")
]
NewParent: TypeAlias = Annotated[str | None, Parameter(help="Path or id of the group that it moves to.")]
Visible: TypeAlias = Annotated[Visibility, Parameter(help="Who may see it: everybody, or its owner and members.")]
NewVisible: TypeAlias = Annotated[
    Visibility | None, Parameter(help="Who may see it: everybody, or its owner and members.")
]
NO_GROUP = "projectGroupDoesNotExist"
NO_PROJECT = "projectDoesNotExist"
_NO_PARENT = "parentProjectGroupDoesNotExist"
_GROUPS: dict[Column, Callable[[ProjectGroupView], Cell]] = {
    Column("PATH", wraps=True): lambda one: one.path,
    Column("ID"): lambda one: one.id,
    Column("VISIBILITY", drop=1): lambda one: _visibility(one),
}
_PROJECTS: dict[Column, Callable[[ProjectView], Cell]] = {
    Column("PATH", wraps=True): lambda one: one.path,
    Column("ID"): lambda one: one.id,
    Column("VISIBILITY", drop=1): lambda one: _visibility(one),
    Column("REPOSITORY", wraps=True, drop=2): lambda one: one.repository_url,
}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """A repository that git can clone, and the access to it."""

    repo_url: str = ""
    """Instead of a remote source: a URL that git can clone, without a password in it."""
    repo_username: str = ""
    """The user's name at the URL, for --repo-password-file."""
    repo_password_file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None
    """A file with a password or a token for the URL; `-` is stdin. It is encrypted before it is stored."""
    ssh_key_file: Path | None = None
    """A file with the private key for an ssh URL. It is encrypted before it is stored."""
    known_hosts_file: Path | None = None
    """A file with the lines of known_hosts that identify the server of an ssh URL."""

    def new_repository(self) -> NewRepository | None:
        """Return the repository; None without a URL. Raises BadRequestError for a file that cannot be read."""
        if not self.repo_url:
            if self.repo_username or self.repo_password_file or self.ssh_key_file or self.known_hosts_file:
                raise BadRequestError(
                    "access to a repository needs its URL", code="invalidRepository", hint="pass --repo-url"
                )
            return None
        return NewRepository(
            url=self.repo_url,
            username=self.repo_username,
            password=_secret_text(self.repo_password_file).strip(),
            ssh_private_key=_secret_text(self.ssh_key_file),
            known_hosts=_text(self.known_hosts_file),
        )


def _secret_text(path: Path | None) -> str:
    """Return the text of a file; warn if others may read it."""
    if path is not None and str(path) != "-":
        warn_of_readers([path])
    return _text(path)


def _text(path: Path | None) -> str:
    return "" if path is None else read_input(path)


def _visibility(thing: ProjectView | ProjectGroupView) -> str:
    hidden = thing.global_visibility == "private" and thing.visibility == "public"
    return "private, as its group" if hidden else thing.visibility


def list_groups(*, parent: Parent, at: PastPoint = "", output: Output = "table") -> int:
    """List the project groups directly in a group."""

    async def work(client: Client) -> None:
        async with near_names(parent, NO_GROUP, paths_near(client, parent)):
            found = await client.project_groups.groups(parent, at=position_text(at))
        if output == "json":
            print_json(found)
        else:
            print_items(found, _GROUPS, f"there are no project groups in {parent}")

    return with_client(work)


def get_group(*, ref: GroupRef, at: PastPoint = "", output: Output = "table") -> int:
    """Show a project group."""

    async def work(client: Client) -> None:
        async with near_names(ref, NO_GROUP, paths_near(client, ref)):
            found = await client.project_groups.get(ref, at=position_text(at))
        if output == "json":
            print_json(found)
        else:
            print_items([found], _GROUPS, "")

    return with_client(work)


def create_group(*, name: Name, parent: Parent, visibility: Visible = "public", output: Output = "table") -> int:
    """Create a project group."""

    async def work(client: Client) -> None:
        async with near_names(parent, _NO_PARENT, paths_near(client, parent)):
            made = await client.project_groups.create(name, parent, visibility=visibility)
        if output == "json":
            print_json(made)
        else:
            say(f"project group {made.path} is created\nid  {made.id}")

    return with_client(work)


def update_group(
    *,
    ref: GroupRef,
    name: NewName = None,
    parent: NewParent = None,
    visibility: NewVisible = None,
    output: Output = "table",
) -> int:
    """Rename, move, publish or hide a project group."""

    async def work(client: Client) -> None:
        changes = ProjectGroupChanges(name=name, parent_ref=parent, visibility=visibility)
        _require_changes(changes, "--name, --parent or --visibility")
        async with (
            near_names(ref, NO_GROUP, paths_near(client, ref)),
            near_names(parent or "", _NO_PARENT, paths_near(client, parent or "")),
        ):
            changed = await client.project_groups.update(ref, changes)
        if output == "json":
            print_json(changed)
        else:
            say(f"project group {changed.path} is changed")

    return with_client(work)


def delete_group(*, ref: GroupRef, yes: Flag = False) -> int:
    """Delete a project group with its groups, projects, secrets and variables. Asks first on a terminal.

    Parameters
    ----------
    yes
        Delete without asking.
    """

    async def work(client: Client) -> None:
        async with near_names(ref, NO_GROUP, paths_near(client, ref)):
            found = await client.project_groups.get(ref)
        require_confirmed(f"delete project group {found.path} with all projects and secrets in it?", yes=yes)
        await client.project_groups.delete(found.id)
        say(f"project group {found.path} is deleted")

    return with_client(work)


def list_projects(*, parent: Parent, at: PastPoint = "", output: Output = "table") -> int:
    """List the projects directly in a group."""

    async def work(client: Client) -> None:
        async with near_names(parent, NO_GROUP, paths_near(client, parent)):
            found = await client.project_groups.projects(parent, at=position_text(at))
        if output == "json":
            print_json(found)
        else:
            print_items(found, _PROJECTS, f"there are no projects in {parent}")

    return with_client(work)


def get_project(*, ref: ProjectRef, at: PastPoint = "", output: Output = "table") -> int:
    """Show a project."""

    async def work(client: Client) -> None:
        async with near_names(ref, NO_PROJECT, paths_near(client, ref)):
            found = await client.projects.get(ref, at=position_text(at))
        if output == "json":
            print_json(found)
        else:
            print_items([found], _PROJECTS, "")

    return with_client(work)


def create_project(
    *,
    name: Name,
    parent: Parent,
    repo_path: str = "",
    remote_source: str = "",
    repository: RepositoryOptions | None = None,
    skip_ssh_host_key_check: Annotated[bool, Parameter(name=["--skip-ssh-host-key-check", "-s"], negative="")] = False,
    visibility: Visible = "public",
    pass_vars_to_forked_pr: Flag = False,
    members_can_perform_run_actions: Flag = False,
    default_branch: str = "",
    output: Output = "table",
) -> int:
    """Create a project from a repository at a remote source, or at any URL that git can clone.

    Parameters
    ----------
    repo_path
        The repository's path at the remote source.
    remote_source
        The name of the remote source.
    skip_ssh_host_key_check
        Do not check the key of the repository's host.
    pass_vars_to_forked_pr
        Give variables to runs of pull requests from forks, too.
    members_can_perform_run_actions
        Let all members of the organization restart, cancel and stop runs.
    default_branch
        The branch of a run that names none.
    """

    async def work(client: Client) -> None:
        at_url = (repository or RepositoryOptions()).new_repository()
        at_source = bool(repo_path and remote_source)
        if at_source == (at_url is not None) or bool(repo_path) != bool(remote_source):
            raise BadRequestError(
                "a project needs a repository: at a remote source, or at a URL",
                code="invalidRepository",
                hint="pass --remote-source and --repo-path, or --repo-url alone",
            )
        new = NewProject(
            name=name,
            parent_ref=parent,
            visibility=visibility,
            repo_path=repo_path,
            remote_source_name=remote_source,
            repository=at_url,
            skip_ssh_host_key_check=skip_ssh_host_key_check,
            pass_vars_to_forked_pr=pass_vars_to_forked_pr,
            members_can_perform_run_actions=members_can_perform_run_actions,
            default_branch=default_branch,
        )
        async with (
            near_names(parent, _NO_PARENT, paths_near(client, parent)),
            near_names(remote_source, "remoteSourceDoesNotExist", remote_source_names(client)),
        ):
            made = await client.projects.create(new)
        if output == "json":
            print_json(made)
        else:
            say(f"project {made.path} is created\nid  {made.id}")

    return with_client(work)


def update_project(
    *,
    ref: ProjectRef,
    name: NewName = None,
    parent: NewParent = None,
    visibility: NewVisible = None,
    pass_vars_to_forked_pr: bool | None = None,
    members_can_perform_run_actions: bool | None = None,
    default_branch: str | None = None,
    repository: RepositoryOptions | None = None,
    output: Output = "table",
) -> int:
    """Rename, move, publish or hide a project, or change its settings. Only what is given changes.

    Parameters
    ----------
    pass_vars_to_forked_pr
        Whether runs of pull requests from forks get variables.
    members_can_perform_run_actions
        Whether all members of the organization may restart, cancel and stop runs.
    default_branch
        The branch of a run that names none.
    """

    async def work(client: Client) -> None:
        changes = ProjectChanges(
            name=name,
            parent_ref=parent,
            visibility=visibility,
            pass_vars_to_forked_pr=pass_vars_to_forked_pr,
            members_can_perform_run_actions=members_can_perform_run_actions,
            default_branch=default_branch,
            repository=(repository or RepositoryOptions()).new_repository(),
        )
        _require_changes(changes, "--name, --parent, --visibility or a setting")
        async with (
            near_names(ref, NO_PROJECT, paths_near(client, ref)),
            near_names(parent or "", _NO_PARENT, paths_near(client, parent or "")),
        ):
            changed = await client.projects.update(ref, changes)
        if output == "json":
            print_json(changed)
        else:
            say(f"project {changed.path} is changed")

    return with_client(work)


def delete_project(*, ref: ProjectRef, yes: Flag = False) -> int:
    """Delete a project with its secrets and variables. Its runs stay. Asks first on a terminal.

    Parameters
    ----------
    yes
        Delete without asking.
    """

    async def work(client: Client) -> None:
        async with near_names(ref, NO_PROJECT, paths_near(client, ref)):
            found = await client.projects.get(ref)
        require_confirmed(f"delete project {found.path} with its secrets and variables?", yes=yes)
        await client.projects.delete(found.id)
        say(f"project {found.path} is deleted")

    return with_client(work)


def _require_changes(changes: ProjectGroupChanges, options: str) -> None:
    """Raise BadRequestError if nothing changes."""
    if not any(getattr(changes, name) is not None for name in changes.__struct_fields__):
        raise BadRequestError("nothing to change", code="nothingToChange", hint=f"pass {options}")
