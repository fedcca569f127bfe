"""Decisions on organizations, their members and invitations."""

from __future__ import annotations

from runstream.domain.config.decisions.users import last_owner
from runstream.domain.config.organization import Invitation, Organization
from runstream.domain.config.refusals import missing, require_choice, require_name, taken
from runstream.domain.config.state import Change, ConfigState, Decision
from runstream.domain.config.tree import deletion
from runstream.domain.config.user import User
from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.events.organization import (
    MemberRole,
    OrganizationCreated,
    OrganizationDeleted,
    OrganizationInvitationClosed,
    OrganizationInvitationCreated,
    OrganizationMemberRemoved,
    OrganizationMemberSet,
    OrganizationVisibilityChanged,
    Visibility,
)
from runstream.events.project_group import GroupParent, ProjectGroupCreated

VISIBILITIES = ("public", "private")
ROLES = ("owner", "member")


def require_visibility(visibility: str, *, code: str = "invalidVisibility") -> None:
    """Raise BadRequestError for an unknown visibility."""
    require_choice(visibility, VISIBILITIES, "the visibility", code=code)


def _require_role(role: str) -> None:
    require_choice(role, ROLES, "the role", code="invalidRole")


def decide_create_organization(
    state: ConfigState,
    *,
    organization_id: str,
    root_group_id: str,
    name: str,
    visibility: Visibility,
    creator: User | None,
) -> Decision:
    """Create an organization with its root project group; the creator, if a user, is its first owner."""
    require_name(name, "an organization", code="invalidOrganizationName")
    require_visibility(visibility)
    if state.named("org", "", name) is not None:
        raise taken("organization", name, code="organizationAlreadyExists")
    events: list[DomainEvent] = [OrganizationCreated(name, visibility, creator.id if creator is not None else "")]
    if creator is not None:
        events.append(OrganizationMemberSet(creator.id, "owner"))
    root = ProjectGroupCreated("", GroupParent("org", organization_id), visibility)
    return [Change("org", organization_id, tuple(events)), Change("projectgroup", root_group_id, (root,))]


def decide_change_organization(organization: Organization, visibility: Visibility) -> Decision:
    """Make an organization public or private; its root project group stays as it is."""
    require_visibility(visibility)
    if visibility == organization.visibility:
        return []
    return [Change("org", organization.id, (OrganizationVisibilityChanged(visibility),))]


def decide_delete_organization(state: ConfigState, organization: Organization) -> Decision:
    """Delete an organization with everything below it."""
    return [
        *deletion(state, state.root_group(organization.id)),
        Change("org", organization.id, (OrganizationDeleted(),)),
    ]


def decide_set_member(organization: Organization, user: User, role: MemberRole) -> Decision:
    """Make a user a member with a role; a member gets another role, and the last owner stays one.

    A pending invitation ends, unless the user has the role already.
    """
    _require_role(role)
    if organization.members.get(user.id) == role:
        return []
    if organization.owners == [user.id]:
        raise last_owner(organization, user)
    events: list[DomainEvent] = [OrganizationMemberSet(user.id, role)]
    if user.id in organization.invitations:
        events.append(OrganizationInvitationClosed(user.id, "withdrawn"))
    return [Change("org", organization.id, tuple(events))]


def decide_remove_member(organization: Organization, user: User) -> Decision:
    """Remove a member who is not the last owner."""
    if user.id not in organization.members:
        raise missing("organization member", user.name, code="orgMemberDoesNotExist")
    if organization.owners == [user.id]:
        raise last_owner(organization, user)
    return [Change("org", organization.id, (OrganizationMemberRemoved(user.id),))]


def decide_invite(
    organization: Organization, user: User, *, invitation_id: str, role: MemberRole, members_too: bool = False
) -> Decision:
    """Invite a user who is not a member; with `members_too`, a member who would get another role."""
    _require_role(role)
    if user.id in organization.invitations:
        raise BadRequestError(
            f"user {user.name!r} is invited to organization {organization.name!r} already",
            code="invitationAlreadyExists",
            hint="withdraw the invitation first to change its role",
        )
    if user.id in organization.members and not members_too:
        raise BadRequestError(
            f"user {user.name!r} is a member of organization {organization.name!r} already",
            code="orgMemberAlreadyExists",
            hint="change the role of the member instead",
        )
    return [Change("org", organization.id, (OrganizationInvitationCreated(invitation_id, user.id, role),))]


def find_invitation(organization: Organization, user: User) -> Invitation:
    """Return the user's invitation. Raises NotExistError `invitationDoesNotExist`."""
    found = organization.invitations.get(user.id)
    if found is None:
        raise missing(
            f"an invitation to organization {organization.name!r} for", user.name, code="invitationDoesNotExist"
        )
    return found


def decide_answer_invitation(organization: Organization, user: User, action: str) -> Decision:
    """Accept or reject an invitation; a user who accepts becomes a member with its role."""
    invitation = find_invitation(organization, user)
    require_choice(action, ("accept", "reject"), "the action", code="")
    if action == "reject":
        return [Change("org", organization.id, (OrganizationInvitationClosed(user.id, "rejected"),))]
    accepted = OrganizationInvitationClosed(user.id, "accepted")
    return [Change("org", organization.id, (accepted, OrganizationMemberSet(user.id, invitation.role)))]


def decide_withdraw_invitation(organization: Organization, user: User) -> Decision:
    """Withdraw an invitation."""
    find_invitation(organization, user)
    return [Change("org", organization.id, (OrganizationInvitationClosed(user.id, "withdrawn"),))]
