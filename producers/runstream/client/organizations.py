"""Organizations, their members and invitations."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from runstream.api import InvitationView, MembersView, MemberView, OrganizationView
from runstream.client.config_types import MemberRole, Visibility
from runstream.client.pages import items, pages
from runstream.client.paths import api_path, point
from runstream.client.session import Session, Stream


class Organizations:
    """Operations on organizations; one is named by its name or its id."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, organization: str, *, at: str = "") -> OrganizationView:
        """Return an organization; with `at` as of a time (with its zone) or a position of the config log.

        Raises ClientError (not-exist, `organizationDoesNotExist`).
        """
        return await self._session.read(api_path("orgs", organization), OrganizationView, point(at))

    def list(self) -> Stream[OrganizationView]:
        """Read the public organizations, by name; for an administrator all. Raises ClientError."""
        return self._session.streams.stream(items(self._session, "/orgs", list[OrganizationView]))

    async def create(self, name: str, *, visibility: Visibility = "public") -> OrganizationView:
        """Create an organization, of which the token's user is the owner.

        Raises ClientError (bad-request: `organizationAlreadyExists`, `invalidOrganizationName`).
        """
        return await self._session.write("POST", "/orgs", {"name": name, "visibility": visibility}, OrganizationView)

    async def update(self, organization: str, *, visibility: Visibility) -> OrganizationView:
        """Make an organization public or private. Raises ClientError (not-exist)."""
        return await self._session.write(
            "PUT", api_path("orgs", organization), {"visibility": visibility}, OrganizationView
        )

    async def delete(self, organization: str) -> None:
        """Delete an organization with its groups, projects and secrets. Raises ClientError (not-exist)."""
        await self._session.write("DELETE", api_path("orgs", organization), None, type(None))

    def members(self, organization: str) -> Stream[MemberView]:
        """Read the members of an organization, by name. Raises ClientError (not-exist)."""
        return self._session.streams.stream(self._members(organization))

    async def _members(self, organization: str) -> AsyncGenerator[MemberView, None]:
        async for page in pages(self._session, api_path("orgs", organization, "members"), MembersView):
            for member in page.members:
                yield member

    async def set_member(self, organization: str, user: str, *, role: MemberRole = "member") -> None:
        """Add a member, or change its role. Raises ClientError (bad-request, `cannotAddUserToOrganization`)."""
        await self._session.write("PUT", api_path("orgs", organization, "members", user), {"role": role}, type(None))

    async def remove_member(self, organization: str, user: str) -> None:
        """Remove a member; the last owner stays. Raises ClientError (not-exist, `orgMemberDoesNotExist`)."""
        await self._session.write("DELETE", api_path("orgs", organization, "members", user), None, type(None))

    async def invitations(self, organization: str) -> tuple[InvitationView, ...]:
        """Return the open invitations of an organization. Raises ClientError."""
        path = api_path("orgs", organization, "invitations")
        return await self._session.read(path, tuple[InvitationView, ...], {"limit": "0"})

    async def invitation(self, organization: str, user: str) -> InvitationView:
        """Return the invitation of a user. Raises ClientError (not-exist, `invitationDoesNotExist`)."""
        return await self._session.read(api_path("orgs", organization, "invitations", user), InvitationView)

    async def invite(self, organization: str, user: str, *, role: MemberRole = "member") -> InvitationView:
        """Invite a user. Raises ClientError (bad-request, `cannotCreateInvitation`)."""
        body = {"user_ref": user, "role": role}
        return await self._session.write("POST", api_path("orgs", organization, "invitations"), body, InvitationView)

    async def withdraw_invitation(self, organization: str, user: str) -> None:
        """Withdraw an invitation. Raises ClientError (not-exist, `invitationDoesNotExist`)."""
        await self._session.write("DELETE", api_path("orgs", organization, "invitations", user), None, type(None))
