"""An organization: members and invitations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.domain.config.fitting import Claim, Reference, existing, require_new, without
from runstream.events.organization import (
    MemberRole,
    OrganizationCreated,
    OrganizationDeleted,
    OrganizationEvent,
    OrganizationInvitationClosed,
    OrganizationInvitationCreated,
    OrganizationMemberRemoved,
    OrganizationMemberSet,
    OrganizationVisibilityChanged,
    Visibility,
)


class Invitation(Struct, frozen=True, gc=False):
    """An invitation of a user to an organization."""

    id: str
    user_id: str
    role: MemberRole
    created_at: datetime


class Organization(Struct, frozen=True, gc=False):
    """An organization."""

    id: str
    name: str
    visibility: Visibility
    creator_user_id: str
    created_at: datetime
    updated_at: datetime
    members: Mapping[str, MemberRole] = {}
    """Roles by user id."""
    invitations: Mapping[str, Invitation] = {}
    """By user id."""

    @property
    def owners(self) -> list[str]:
        """The ids of its owners."""
        return [user_id for user_id, role in self.members.items() if role == "owner"]

    def claims(self) -> Iterator[Claim]:
        """Yield its name, which no other organization may have."""
        yield "org", "", self.name

    def references(self) -> Iterator[Reference]:
        """Yield its members and the invited users, who have to exist."""
        yield from (("user", user_id) for user_id in (*self.members, *self.invitations))


def evolve_organization(
    organization: Organization | None, key: str, event: OrganizationEvent, at: datetime
) -> Organization | None:
    """Return the organization after an event; None once deleted. Raises Unfit."""
    if isinstance(event, OrganizationCreated):
        require_new(organization, key)
        return Organization(key, event.name, event.visibility, event.creator_user_id, at, at)
    organization = existing(organization, key)
    members, invitations = organization.members, organization.invitations
    match event:
        case OrganizationVisibilityChanged(visibility):
            organization = replace(organization, visibility=visibility)
        case OrganizationMemberSet(user_id, role):
            organization = replace(organization, members={**members, user_id: role})
        case OrganizationMemberRemoved(user_id):
            organization = replace(organization, members=without(members, user_id))
        case OrganizationInvitationCreated(invitation_id, user_id, role):
            require_new(invitations.get(user_id), invitation_id)
            invitation = Invitation(invitation_id, user_id, role, at)
            organization = replace(organization, invitations={**invitations, user_id: invitation})
        case OrganizationInvitationClosed(user_id):
            organization = replace(organization, invitations=without(invitations, user_id))
        case OrganizationDeleted():
            return None
        case _:
            assert_never(event)
    return replace(organization, updated_at=at)
