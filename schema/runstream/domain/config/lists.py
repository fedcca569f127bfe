"""Lists by name, in pages: users, organizations, members, remote sources."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

from msgspec import Struct

from runstream.domain.config.organization import Organization
from runstream.domain.config.remote_source import RemoteSource
from runstream.domain.config.state import ConfigState
from runstream.domain.config.user import User
from runstream.events.organization import MemberRole

T = TypeVar("T")


class NamePage(Struct, Generic[T], frozen=True):
    """A part of a list by name."""

    start: str = ""
    """The name behind which it begins; empty for the beginning."""
    limit: int = 0
    """Maximum number of things; 0 for all."""
    descending: bool = False

    def of(self, things: Mapping[str, T], wanted: Callable[[T], bool] = lambda _: True) -> tuple[list[T], bool]:
        """Return this part of the things by name, and whether more follow."""
        found: list[T] = []
        for name in sorted(things, reverse=self.descending):
            if self.start and (name >= self.start if self.descending else name <= self.start):
                continue
            if not wanted(things[name]):
                continue
            if self.limit and len(found) == self.limit:
                return found, True
            found.append(things[name])
        return found, False


def list_users(state: ConfigState, page: NamePage[User]) -> tuple[list[User], bool]:
    """Return users by name, and whether more follow."""
    return page.of({user.name: user for user in state.users.values()})


def list_remote_sources(state: ConfigState, page: NamePage[RemoteSource]) -> tuple[list[RemoteSource], bool]:
    """Return remote sources by name, and whether more follow."""
    return page.of({source.name: source for source in state.remote_sources.values()})


def list_organizations(
    state: ConfigState, page: NamePage[Organization], visibilities: Collection[str] = ("public",)
) -> tuple[list[Organization], bool]:
    """Return organizations of these visibilities by name, and whether more follow."""
    organizations = {one.name: one for one in state.organizations.values()}
    return page.of(organizations, lambda one: one.visibility in visibilities)


def list_members(
    state: ConfigState, organization: Organization, page: NamePage[tuple[User, MemberRole]]
) -> tuple[list[tuple[User, MemberRole]], bool]:
    """Return the members of an organization by name, and whether more follow."""
    members = ((state.users[user_id], role) for user_id, role in organization.members.items())
    return page.of({user.name: (user, role) for user, role in members})


def list_organizations_of(
    state: ConfigState, user: User, page: NamePage[tuple[Organization, MemberRole]]
) -> tuple[list[tuple[Organization, MemberRole]], bool]:
    """Return the organizations of which a user is a member by name, and whether more follow."""
    return page.of({one.name: (one, one.members[user.id]) for one in _related(state, user) if user.id in one.members})


def invitations_of(state: ConfigState, user: User) -> list[Organization]:
    """Return the organizations to which a user is invited, by name."""
    return sorted((one for one in _related(state, user) if user.id in one.invitations), key=lambda one: one.name)


def _related(state: ConfigState, user: User) -> list[Organization]:
    """Return the organizations of which a user is a member, or to which the user is invited."""
    return [state.organizations[key] for kind, key in state.referrers("user", user.id) if kind == "org"]
