"""`runstream org`: organizations, their members and invitations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.config_inputs import Flag
from runstream.cli.confirming import require_confirmed
from runstream.cli.finding import PastPoint, position_text
from runstream.cli.near_names import Names, near_names, organization_names
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say
from runstream.client import Client, InvitationView, MemberView, OrganizationView
from runstream.client.config_types import MemberRole, Visibility

Name: TypeAlias = Annotated[str, Parameter(name=["--name", "-n"], help="The organization's name, or its id.")]
Orgname: TypeAlias = Annotated[str, Parameter(name=["--orgname", "-n"], help="The organization's name, or its id.")]
Member: TypeAlias = Annotated[str, Parameter(help="The user's name, or its id.", name="--username")]
Role: TypeAlias = Annotated[MemberRole, Parameter(name=["--role", "-r"], help="Owners may change everything.")]
_MISSING = "organizationDoesNotExist"
_ORGANIZATIONS: dict[Column, Callable[[OrganizationView], Cell]] = {
    Column("NAME"): lambda one: one.name,
    Column("ID"): lambda one: one.id,
    Column("VISIBILITY"): lambda one: one.visibility,
}
_MEMBERS: dict[Column, Callable[[MemberView], Cell]] = {
    Column("USER"): lambda one: one.user.username,
    Column("ID"): lambda one: one.user.id,
    Column("ROLE"): lambda one: one.role,
}
_INVITATIONS: dict[Column, Callable[[InvitationView], Cell]] = {
    Column("USER"): lambda one: one.user_ref,
    Column("ORGANIZATION", drop=1): lambda one: one.organization_name,
}
_OWN_INVITATIONS: dict[Column, Callable[[InvitationView], Cell]] = {
    Column("ORGANIZATION"): lambda one: one.organization_name,
    Column("ID"): lambda one: one.organization_id,
}


def list_organizations(*, output: Output = "table") -> int:
    """List the public organizations, by name; for an administrator all."""

    async def work(client: Client) -> None:
        found = [one async for one in client.organizations.list()]
        if output == "json":
            print_json(found)
        else:
            print_items(found, _ORGANIZATIONS, "there are no public organizations")

    return with_client(work)


def get_organization(*, name: Name, at: PastPoint = "", output: Output = "table") -> int:
    """Show an organization."""

    async def work(client: Client) -> None:
        async with near_names(name, _MISSING, organization_names(client)):
            found = await client.organizations.get(name, at=position_text(at))
        if output == "json":
            print_json(found)
        else:
            print_items([found], _ORGANIZATIONS, "")

    return with_client(work)


def create_organization(
    *,
    name: Annotated[str, Parameter(name=["--name", "-n"])],
    visibility: Visibility = "public",
    output: Output = "table",
) -> int:
    """Create an organization; you become its owner.

    Parameters
    ----------
    name
        Its name: letters, digits and single dashes, starting with a letter.
    visibility
        Who may see it: everybody, or its members.
    """

    async def work(client: Client) -> None:
        made = await client.organizations.create(name, visibility=visibility)
        if output == "json":
            print_json(made)
        else:
            say(f"organization {made.name} is created\nid  {made.id}")

    return with_client(work)


def update_organization(*, name: Name, visibility: Visibility, output: Output = "table") -> int:
    """Make an organization public or private.

    Parameters
    ----------
    visibility
        Who may see it: everybody, or its members.
    """

    async def work(client: Client) -> None:
        async with near_names(name, _MISSING, organization_names(client)):
            changed = await client.organizations.update(name, visibility=visibility)
        if output == "json":
            print_json(changed)
        else:
            say(f"organization {changed.name} is {changed.visibility}")

    return with_client(work)


def delete_organization(*, name: Name, yes: Flag = False) -> int:
    """Delete an organization with its groups, projects, secrets and variables. Asks first on a terminal.

    Parameters
    ----------
    yes
        Delete without asking.
    """

    async def work(client: Client) -> None:
        async with near_names(name, _MISSING, organization_names(client)):
            found = await client.organizations.get(name)
        require_confirmed(f"delete organization {found.name} with its projects and secrets?", yes=yes)
        await client.organizations.delete(found.id)
        say(f"organization {found.name} is deleted")

    return with_client(work)


def list_members(*, orgname: Orgname, output: Output = "table") -> int:
    """List the members of an organization, by name."""

    async def work(client: Client) -> None:
        async with near_names(orgname, _MISSING, organization_names(client)):
            members = [member async for member in client.organizations.members(orgname)]
        if output == "json":
            print_json(members)
        else:
            print_items(members, _MEMBERS, f"organization {orgname} has no members")

    return with_client(work)


def add_member(*, orgname: Orgname, username: Member, role: Role = "member") -> int:
    """Add a user to an organization, or change the role of a member."""

    async def work(client: Client) -> None:
        async with near_names(orgname, _MISSING, organization_names(client)):
            await client.organizations.set_member(orgname, username, role=role)
        say(f"user {username} is {'an owner' if role == 'owner' else 'a member'} of organization {orgname}")

    return with_client(work)


def remove_member(*, orgname: Orgname, username: Member) -> int:
    """Remove a user from an organization. Its last owner stays."""

    async def work(client: Client) -> None:
        async def names() -> list[str]:
            return [member.user.username async for member in client.organizations.members(orgname)]

        members = Names(names, f"org member list -n {orgname}")
        async with (
            near_names(orgname, _MISSING, organization_names(client)),
            near_names(username, "userDoesNotExist", members),
            near_names(username, "orgMemberDoesNotExist", members),
        ):
            await client.organizations.remove_member(orgname, username)
        say(f"user {username} is no member of organization {orgname} any more")

    return with_client(work)


def list_invitations(*, orgname: str = "", output: Output = "table") -> int:
    """List the open invitations of an organization, or your own.

    Parameters
    ----------
    orgname
        The organization's name, or its id. Default: the invitations that you have.
    """

    async def work(client: Client) -> None:
        if orgname:
            async with near_names(orgname, _MISSING, organization_names(client)):
                found = await client.organizations.invitations(orgname)
        else:
            found = await client.users.invitations()
        if output == "json":
            print_json(found)
        else:
            print_items(found, _INVITATIONS if orgname else _OWN_INVITATIONS, "there are no invitations")

    return with_client(work)


def create_invitation(*, orgname: Orgname, username: Member, role: Role = "member", output: Output = "table") -> int:
    """Invite a user to an organization."""

    async def work(client: Client) -> None:
        async with near_names(orgname, _MISSING, organization_names(client)):
            made = await client.organizations.invite(orgname, username, role=role)
        if output == "json":
            print_json(made)
        else:
            say(f"user {username} is invited to organization {orgname}")

    return with_client(work)


def delete_invitation(*, orgname: Orgname, username: Member) -> int:
    """Withdraw the invitation of a user."""

    async def work(client: Client) -> None:
        async with near_names(orgname, _MISSING, organization_names(client)):
            await client.organizations.withdraw_invitation(orgname, username)
        say(f"the invitation of user {username} to organization {orgname} is withdrawn")

    return with_client(work)


def accept_invitation(*, orgname: Orgname) -> int:
    """Accept your invitation to an organization."""

    async def work(client: Client) -> None:
        await _answer(client, orgname, "accept")
        say(f"you are a member of organization {orgname}")

    return with_client(work)


def reject_invitation(*, orgname: Orgname) -> int:
    """Reject your invitation to an organization."""

    async def work(client: Client) -> None:
        await _answer(client, orgname, "reject")
        say(f"the invitation to organization {orgname} is rejected")

    return with_client(work)


async def _answer(client: Client, orgname: str, answer: Literal["accept", "reject"]) -> None:
    async def names() -> list[str]:
        return [one.organization_name for one in await client.users.invitations()]

    invited = Names(names, "org invitation list")
    async with near_names(orgname, _MISSING, invited), near_names(orgname, "invitationDoesNotExist", invited):
        await client.users.answer_invitation(orgname, answer)
