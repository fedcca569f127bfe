"""The events of an organization, with its members and invitations."""

from __future__ import annotations

from typing import Literal, get_args

from runstream.events.event import DomainEvent

Visibility = Literal["public", "private"]
MemberRole = Literal["owner", "member"]


class OrganizationCreated(DomainEvent, frozen=True):
    """An organization was created; the same batch creates the root project group."""

    name: str
    visibility: Visibility
    creator_user_id: str
    """The user who created it, its first owner; empty for the admin token."""


class OrganizationVisibilityChanged(DomainEvent, frozen=True):
    """The organization was made public or private."""

    visibility: Visibility


class OrganizationMemberSet(DomainEvent, frozen=True):
    """The user became a member, or a member got another role."""

    user_id: str
    role: MemberRole


class OrganizationMemberRemoved(DomainEvent, frozen=True):
    """The user is not a member any more."""

    user_id: str


class OrganizationInvitationCreated(DomainEvent, frozen=True):
    """The user was invited."""

    invitation_id: str
    user_id: str
    role: MemberRole


class OrganizationInvitationClosed(DomainEvent, frozen=True):
    """The invitation ended; the same commit makes a user who accepted it a member."""

    user_id: str
    outcome: Literal["accepted", "rejected", "withdrawn"]


class OrganizationDeleted(DomainEvent, frozen=True):
    """The organization was deleted, with members and invitations; everything below it was deleted before."""


OrganizationEvent = (
    OrganizationCreated
    | OrganizationVisibilityChanged
    | OrganizationMemberSet
    | OrganizationMemberRemoved
    | OrganizationInvitationCreated
    | OrganizationInvitationClosed
    | OrganizationDeleted
)
ORGANIZATION_EVENTS: tuple[type[DomainEvent], ...] = get_args(OrganizationEvent)
