"""The state of the config service: everything that exists, folded from commits in place.

The state changes in place, since it can hold 100,000 things and a commit changes one of them; the things themselves are
immutable. A commit that does not fit changes nothing. What is kept true: no two things claim the same name, everything
that a thing refers to exists, and no group is inside itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, assert_never, cast

from msgspec import Struct

from runstream.domain.config.fitting import Claim, Kind, Reference, Unfit
from runstream.domain.config.organization import Organization, evolve_organization
from runstream.domain.config.project import Project, evolve_project
from runstream.domain.config.project_group import ProjectGroup, evolve_project_group
from runstream.domain.config.remote_source import RemoteSource, evolve_remote_source
from runstream.domain.config.secret import StoredSecret, evolve_secret
from runstream.domain.config.user import LinkedAccount, User, UserToken, evolve_user
from runstream.domain.config.variable import StoredVariable, evolve_variable
from runstream.events.event import DomainEvent
from runstream.events.organization import OrganizationEvent
from runstream.events.project import ProjectEvent
from runstream.events.project_group import ProjectGroupEvent
from runstream.events.remote_source import RemoteSourceEvent
from runstream.events.secret import SecretEvent
from runstream.events.user import UserEvent
from runstream.events.variable import VariableEvent

Aggregate: TypeAlias = User | Organization | ProjectGroup | Project | StoredSecret | StoredVariable | RemoteSource


class ConfigState:
    """Everything that exists in the config service, at one position of its log."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.organizations: dict[str, Organization] = {}
        self.groups: dict[str, ProjectGroup] = {}
        self.projects: dict[str, Project] = {}
        self.secrets: dict[str, StoredSecret] = {}
        self.variables: dict[str, StoredVariable] = {}
        self.remote_sources: dict[str, RemoteSource] = {}
        self._claimed: dict[Claim, str] = {}
        """The id of the thing that has each claim."""
        self._names: dict[tuple[str, str], dict[str, str]] = {}
        """Ids by name, by kind of name and parent."""
        self._referrers: dict[Reference, dict[Reference, None]] = {}
        """The things that refer to each thing, in the order in which they began to."""

    def find(self, kind: Kind, key: str) -> Aggregate | None:
        """Return the thing of this kind and id."""
        return self._of_kind(kind).get(key)

    def everything(self) -> Iterator[tuple[Kind, Aggregate]]:
        """Yield all things, parents of other kinds first."""
        kinds: tuple[Kind, ...] = (
            "remotesource",
            "user",
            "org",
            "projectgroup",
            "project",
            "secret",
            "variable",
        )
        for kind in kinds:
            yield from ((kind, thing) for thing in self._of_kind(kind).values())

    def named(self, kind: str, parent: str, name: str) -> str | None:
        """Return the id of the thing of this kind and name below a parent (empty for the whole service)."""
        return self._claimed.get((kind, parent, name))

    def names(self, kind: str, parent: str = "") -> Mapping[str, str]:
        """Return the ids of the things of this kind below a parent, by name."""
        return self._names.get((kind, parent), {})

    def referrers(self, kind: Kind, key: str) -> Collection[Reference]:
        """Return what refers to a thing: children of groups and projects, organizations of a user."""
        return self._referrers.get((kind, key), {}).keys()

    def token(self, digest: str) -> tuple[User, UserToken] | None:
        """Return the token with this SHA-256 (hex), and its user."""
        user_id = self.named("token", "", digest)
        if user_id is None:
            return None
        user = self.users[user_id]
        return user, next(token for token in user.tokens.values() if token.digest == digest)

    def remote_user(self, remote_source_id: str, remote_user_id: str) -> tuple[User, LinkedAccount] | None:
        """Return the user to whom a user of a git host is linked, and the account."""
        user_id = self.named("remote user", remote_source_id, remote_user_id)
        if user_id is None:
            return None
        user, wanted = self.users[user_id], (remote_source_id, remote_user_id)
        return user, next(one for one in user.accounts.values() if (one.remote_source_id, one.remote_user_id) == wanted)

    def account(self, account_id: str) -> tuple[User, LinkedAccount] | None:
        """Return the linked account of this id, and its user."""
        user_id = self.named("account", "", account_id)
        return None if user_id is None else (self.users[user_id], self.users[user_id].accounts[account_id])

    def root_group(self, owner_id: str) -> ProjectGroup:
        """Return the root group of a user or an organization."""
        return self.groups[self._claimed["projectgroup", owner_id, ""]]

    def apply(self, kind: Kind, key: str, events: Sequence[DomainEvent], at: datetime) -> None:
        """Apply the events of one commit, decided at this time. Raises Unfit, and then has changed nothing."""
        things = self._of_kind(kind)
        before = after = things.get(key)
        for event in events:
            after = _evolve(kind, after, key, event, at)
        self._require_fit(kind, key, before, after)
        self._index(kind, key, before, after)
        if after is None:
            things.pop(key, None)
        else:
            things[key] = after

    def _require_fit(self, kind: Kind, key: str, before: Aggregate | None, after: Aggregate | None) -> None:
        own = set(before.claims()) if before is not None else set()
        claims = list(after.claims()) if after is not None else []
        if len(set(claims)) < len(claims):
            raise Unfit(f"{kind} {key!r} has two things of one name")
        for claim in claims:
            if claim not in own and claim in self._claimed:
                raise Unfit(f"the {claim[0]} {claim[2]!r} exists already")
        for other_kind, other in after.references() if after is not None else ():
            if (other_kind, other) == (kind, key) or self.find(other_kind, other) is None:
                raise Unfit(f"{other_kind} {other!r} does not exist")
        if isinstance(after, ProjectGroup):
            self._require_outside(after)
        if after is None and self.referrers(kind, key):
            raise Unfit(f"something still refers to {kind} {key!r}")

    def _require_outside(self, group: ProjectGroup) -> None:
        """Require that no parent of the group is the group."""
        parent = group.parent
        while parent.kind == "projectgroup":
            if parent.id == group.id:
                raise Unfit(f"project group {group.name!r} would be inside itself")
            parent = self.groups[parent.id].parent

    def _index(self, kind: Kind, key: str, before: Aggregate | None, after: Aggregate | None) -> None:
        for claim in before.claims() if before is not None else ():
            space, parent, name = claim
            del self._claimed[claim], self._names[space, parent][name]
            if not self._names[space, parent]:
                del self._names[space, parent]
        for claim in after.claims() if after is not None else ():
            space, parent, name = claim
            self._claimed[claim] = key
            self._names.setdefault((space, parent), {})[name] = key
        new = dict.fromkeys(after.references()) if after is not None else {}
        for other in dict.fromkeys(before.references()) if before is not None else ():
            if other not in new:
                del self._referrers[other][kind, key]
                if not self._referrers[other]:
                    del self._referrers[other]
        for other in new:
            self._referrers.setdefault(other, {})[kind, key] = None

    def _of_kind(self, kind: Kind) -> dict[str, Aggregate]:
        match kind:
            case "user":
                things: object = self.users
            case "org":
                things = self.organizations
            case "projectgroup":
                things = self.groups
            case "project":
                things = self.projects
            case "secret":
                things = self.secrets
            case "variable":
                things = self.variables
            case "remotesource":
                things = self.remote_sources
            case _:
                assert_never(kind)
        return cast("dict[str, Aggregate]", things)


def _evolve(kind: Kind, thing: Aggregate | None, key: str, event: DomainEvent, at: datetime) -> Aggregate | None:
    match kind:
        case "user":
            return evolve_user(cast("User | None", thing), key, cast("UserEvent", event), at)
        case "org":
            return evolve_organization(cast("Organization | None", thing), key, cast("OrganizationEvent", event), at)
        case "projectgroup":
            return evolve_project_group(cast("ProjectGroup | None", thing), key, cast("ProjectGroupEvent", event), at)
        case "project":
            return evolve_project(cast("Project | None", thing), key, cast("ProjectEvent", event), at)
        case "secret":
            return evolve_secret(cast("StoredSecret | None", thing), key, cast("SecretEvent", event), at)
        case "variable":
            return evolve_variable(cast("StoredVariable | None", thing), key, cast("VariableEvent", event), at)
        case "remotesource":
            return evolve_remote_source(cast("RemoteSource | None", thing), key, cast("RemoteSourceEvent", event), at)
        case _:
            assert_never(kind)


class Change(Struct, frozen=True, gc=False):
    """What a decision changes in one thing: one commit."""

    kind: Kind
    id: str
    events: tuple[DomainEvent, ...]


Decision: TypeAlias = list[Change]
"""Changes of different things, in an order in which each leaves a valid state; empty for nothing to change."""
