"""`runstream remotesource`: hosts of git repositories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.config_inputs import Flag
from runstream.cli.confirming import require_confirmed
from runstream.cli.near_names import near_names, remote_source_names
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say
from runstream.client import Client, NewRemoteSource, RemoteSourceChanges, RemoteSourceView
from runstream.errors import BadRequestError

SourceRef: TypeAlias = Annotated[str, Parameter(help="The remote source's name, or its id.")]
GITHUB_API = "https://api.github.com"
GITHUB_HOST_KEY = "github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
"""The published key of github.com, which is used when --api-url is not given."""
_MISSING = "remoteSourceDoesNotExist"
_SOURCES: dict[Column, Callable[[RemoteSourceView], Cell]] = {
    Column("NAME"): lambda one: one.name,
    Column("ID"): lambda one: one.id,
    Column("LOGIN BY"): lambda one: one.auth_type,
    Column("REGISTRATION", drop=1): lambda one: "enabled" if one.registration_enabled else "disabled",
    Column("LOGIN", drop=2): lambda one: "enabled" if one.login_enabled else "disabled",
}


def list_remote_sources(*, output: Output = "table") -> int:
    """List remote sources, by name."""

    async def work(client: Client) -> None:
        found = [one async for one in client.remote_sources.list()]
        if output == "json":
            print_json(found)
        else:
            print_items(found, _SOURCES, "there are no remote sources")

    return with_client(work)


def get_remote_source(*, ref: SourceRef, output: Output = "table") -> int:
    """Show a remote source."""

    async def work(client: Client) -> None:
        async with near_names(ref, _MISSING, remote_source_names(client)):
            found = await client.remote_sources.get(ref)
        if output == "json":
            print_json(found)
        else:
            print_items([found], _SOURCES, "")

    return with_client(work)


def create_remote_source(
    *,
    name: Annotated[str, Parameter(name=["--name", "-n"])],
    type: Literal["gitea", "gitlab", "github"],  # noqa: A002  the option's name
    auth_type: Literal["password", "oauth2"],
    api_url: str = "",
    skip_verify: Flag = False,
    clientid: str = "",
    secret: str = "",
    ssh_host_key: str = "",
    skip_ssh_host_key_check: Annotated[bool, Parameter(name=["--skip-ssh-host-key-check", "-s"], negative="")] = False,
    registration_enabled: bool = True,
    login_enabled: bool = True,
    output: Output = "table",
) -> int:
    """Create a remote source.

    Parameters
    ----------
    name
        Its name: letters, digits and single dashes, starting with a letter.
    type
        The software of the host.
    auth_type
        How users log in there.
    api_url
        The URL of the host's API. Default for github: https://api.github.com, with the key of github.com.
    skip_verify
        Do not verify the host's certificate.
    clientid
        The client id, for oauth2.
    secret
        The client secret, for oauth2. It is encrypted before it is stored.
    ssh_host_key
        The public SSH key of the host, as a line of known_hosts.
    skip_ssh_host_key_check
        Do not check the SSH key of the host.
    registration_enabled
        Whether users of the host may register here.
    login_enabled
        Whether users may log in with an account of the host.
    """

    async def work(client: Client) -> None:
        url, key = api_url, ssh_host_key
        if not url:
            if type != "github":
                raise BadRequestError(
                    f"a remote source of type {type} needs the URL of its API",
                    code="invalidRemoteSourceAPIURL",
                    hint="pass --api-url",
                )
            url, key = GITHUB_API, key or GITHUB_HOST_KEY
        made = await client.remote_sources.create(
            NewRemoteSource(
                name=name,
                type=type,
                auth_type=auth_type,
                apiurl=url,
                skip_verify=skip_verify,
                oauth_2_client_id=clientid,
                oauth_2_client_secret=secret,
                ssh_host_key=key,
                skip_ssh_host_key_check=skip_ssh_host_key_check,
                registration_enabled=registration_enabled,
                login_enabled=login_enabled,
            )
        )
        if output == "json":
            print_json(made)
        else:
            say(f"remote source {made.name} is created\nid  {made.id}")

    return with_client(work)


def update_remote_source(
    *,
    ref: SourceRef,
    new_name: str | None = None,
    api_url: str | None = None,
    skip_verify: bool | None = None,
    clientid: str | None = None,
    secret: str | None = None,
    ssh_host_key: str | None = None,
    skip_ssh_host_key_check: Annotated[bool | None, Parameter(name=["--skip-ssh-host-key-check", "-s"])] = None,
    registration_enabled: bool | None = None,
    login_enabled: bool | None = None,
    output: Output = "table",
) -> int:
    """Change a remote source. Only what is given changes.

    Parameters
    ----------
    new_name
        Its new name.
    api_url
        The URL of the host's API.
    skip_verify
        Whether the host's certificate is not verified.
    clientid
        The client id, for oauth2.
    secret
        The client secret, for oauth2. It is encrypted before it is stored.
    ssh_host_key
        The public SSH key of the host, as a line of known_hosts.
    skip_ssh_host_key_check
        Whether the SSH key of the host is not checked.
    registration_enabled
        Whether users of the host may register here.
    login_enabled
        Whether users may log in with an account of the host.
    """

    async def work(client: Client) -> None:
        changes = RemoteSourceChanges(
            name=new_name,
            apiurl=api_url,
            skip_verify=skip_verify,
            oauth_2_client_id=clientid,
            oauth_2_client_secret=secret,
            ssh_host_key=ssh_host_key,
            skip_ssh_host_key_check=skip_ssh_host_key_check,
            registration_enabled=registration_enabled,
            login_enabled=login_enabled,
        )
        if changes == RemoteSourceChanges():
            raise BadRequestError("nothing to change", code="nothingToChange", hint="pass what changes")
        async with near_names(ref, _MISSING, remote_source_names(client)):
            found = await client.remote_sources.get(ref)  # changes name it by its name alone
        changed = await client.remote_sources.update(found.name, changes)
        if output == "json":
            print_json(changed)
        else:
            say(f"remote source {changed.name} is changed")

    return with_client(work)


def delete_remote_source(*, ref: SourceRef, yes: Flag = False) -> int:
    """Delete a remote source. Asks first on a terminal.

    Parameters
    ----------
    yes
        Delete without asking.
    """

    async def work(client: Client) -> None:
        async with near_names(ref, _MISSING, remote_source_names(client)):
            found = await client.remote_sources.get(ref)
        require_confirmed(f"delete remote source {found.name}?", yes=yes)
        await client.remote_sources.delete(found.name)
        say(f"remote source {found.name} is deleted")

    return with_client(work)
