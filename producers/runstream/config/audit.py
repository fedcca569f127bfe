"""The audit trail: who changed which users, organizations, projects, secrets, variables and remote sources, and when.

It is read from the log of the config service, from an earlier commit to a later one. Deleted things keep their last
name and place, so that their owners still see what was done to them; so do deleted users as authors. A commit has the
name that its author had then; who that was follows from the names of users up to it, as another user may have the name
by now. Sealed texts and digests are never part of it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TypeAlias

from msgspec import Struct

from runstream.codec import decode
from runstream.commits import StoredCommit
from runstream.config_folding import PARTITION
from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.events.organization import OrganizationCreated
from runstream.events.project import ProjectCreated, ProjectMoved
from runstream.events.project_group import ProjectGroupCreated, ProjectGroupMoved
from runstream.events.remote_source import RemoteSourceCreated, RemoteSourceRenamed
from runstream.events.secret import SecretCreated, SecretRenamed
from runstream.events.user import UserCreated, UserRenamed
from runstream.events.variable import VariableCreated, VariableRenamed
from runstream.log.port import Log, RawMessage

MAX_SCANNED = 5000
"""Maximum number of commits that one page reads; a page may have fewer entries, and another one behind it."""
_MARK = 500
"""Commits between two marks of time."""
MAX_SKEW = timedelta(hours=1)
"""Maximum difference between the clock of a gateway, which dates a change, and that of the log's server."""
_SHOWN = ("name", "visibility", "role", "username", "remote_username", "scope", "admin", "outcome")
"""Fields of events that are shown."""
_USER = "user:"
"""Beginning of the authors that are users."""
ThingKey: TypeAlias = tuple[str, str]
"""Kind and id."""


class LastPlace(Struct, frozen=True, gc=False):
    """The last name of a thing, and what it was in."""

    name: str
    parent: ThingKey | None
    """None for users, organizations and remote sources."""


class AuditedCommit(Struct, frozen=True):
    """A change of one thing."""

    sequence: int
    stored: StoredCommit
    thing: ThingKey
    places: tuple[tuple[ThingKey, str], ...]
    """The thing with its name, and what it was in, up to its user or organization."""
    events: tuple[tuple[DomainEvent, dict[str, str | bool]], ...]
    """Each event, with its fields that are shown."""
    author: str
    """The author by the last name: `user:NAME`, or `admin` for the holder of the admin token."""

    @property
    def author_names(self) -> tuple[str, ...]:
        """The last name of the user that is the author, and the name of then; none for the admin token."""
        return tuple(
            one.removeprefix(_USER) for one in (self.author, self.stored.commit.actor) if one.startswith(_USER)
        )

    @property
    def path(self) -> str:
        """The path of the thing; of a secret or a variable, of the project or group that has it."""
        names = [name for (kind, _), name in reversed(self.places) if kind not in ("secret", "variable") and name]
        root = self.places[-1][0][0]
        return "/".join([root, *names] if root in ("user", "org") else names)

    @property
    def owner(self) -> ThingKey:
        """The user or organization that it belongs to; the thing itself where it belongs to none."""
        return self.places[-1][0]


class AuditTrail:
    """The changes of a config log, in pages; the places of all things are kept in memory once it is used."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._reading = asyncio.Lock()
        self._epoch = log.epoch
        self._after = 0
        self._places: dict[ThingKey, LastPlace] = {}
        self._holders: dict[str, list[tuple[int, str]]] = {}
        self._marks: list[tuple[datetime, int]] = []

    def knows_user(self, name: str) -> bool:
        """Return whether a user has, or had, a name, as of the last page."""
        return name in self._holders

    def knows(self, thing: ThingKey) -> bool:
        """Return whether a thing exists or did, as of the last page."""
        return thing in self._places

    async def page(
        self, after: int, since: datetime | None, wanted: Callable[[AuditedCommit], bool], limit: int
    ) -> tuple[list[AuditedCommit], int | None]:
        """Return up to `limit` wanted changes behind the sequence `after`, and the sequence behind which more may be.

        With `since`, only changes at that time or later.
        """
        await self._catch_up()
        end = self._after
        if since is not None:
            after = max(after, self._before(since))
        found: list[AuditedCommit] = []
        scanned = 0
        if after >= end:
            return found, None
        async with self._log.read(PARTITION, after) as reader:
            while after < end:
                for message in await reader.next_batch(500):
                    after, scanned = message.position.sequence, scanned + 1
                    one = self._audited(message)
                    if one is not None and (since is None or one.stored.commit.time >= since) and wanted(one):
                        found.append(one)
                    if len(found) == limit or scanned == MAX_SCANNED:
                        return found, after if after < end else None
        return found, None

    async def _catch_up(self) -> None:
        """Take the places of all things from the log up to its end."""
        async with self._reading:
            if self._epoch != self._log.epoch:
                self._epoch, self._after, self._places, self._marks = self._log.epoch, 0, {}, []
                self._holders = {}
            end = await self._log.end(PARTITION)
            if self._after >= end:
                return
            async with self._log.read(PARTITION, self._after) as reader:
                while self._after < end:
                    for message in await reader.next_batch(1000):
                        self._take(message)

    def _take(self, message: RawMessage) -> None:
        self._after = message.position.sequence
        if self._after % _MARK == 1:
            self._marks.append((message.stored_at, self._after))
        stored = _decoded(message)
        if stored is None:
            return
        key = _thing_of(stored)
        for event in stored.commit.events:
            known = self._places.get(key, LastPlace("", None))
            if isinstance(event, UserCreated | UserRenamed):
                self._holders.setdefault(event.name, []).append((self._after, key[1]))
            match event:
                case UserCreated(name=name) | OrganizationCreated(name=name) | RemoteSourceCreated(name=name):
                    self._places[key] = LastPlace(name, None)
                case UserRenamed(name) | RemoteSourceRenamed(name) | SecretRenamed(name) | VariableRenamed(name):
                    self._places[key] = LastPlace(name, known.parent)
                case ProjectCreated(name=name, parent_id=parent) | ProjectMoved(name=name, parent_id=parent):
                    self._places[key] = LastPlace(name, ("projectgroup", parent))
                case ProjectGroupCreated(name=name, parent=above) | ProjectGroupMoved(name=name, parent=above):
                    self._places[key] = LastPlace(name, (above.kind, above.id))
                case SecretCreated(name=name, parent=place) | VariableCreated(name=name, parent=place):
                    self._places[key] = LastPlace(name, (place.kind, place.id))

    def _audited(self, message: RawMessage) -> AuditedCommit | None:
        stored = _decoded(message)
        if stored is None or not stored.commit.events or stored.commit.address.kind == "skip":
            return None
        thing = _thing_of(stored)
        events = tuple((event, self._fields(event)) for event in stored.commit.events)
        return AuditedCommit(
            message.position.sequence, stored, thing, tuple(self._above(thing)), events, self._author(message, stored)
        )

    def _author(self, message: RawMessage, stored: StoredCommit) -> str:
        """Return the author of a commit, a user by its last name."""
        actor = stored.commit.actor
        holders = self._holders.get(actor.removeprefix(_USER), []) if actor.startswith(_USER) else []
        index = bisect_left(holders, (message.position.sequence, "")) - 1
        user = self._places.get(("user", holders[index][1])) if index >= 0 else None
        return actor if user is None else f"{_USER}{user.name}"

    def _fields(self, event: DomainEvent) -> dict[str, str | bool]:
        """Return the fields of an event that say what changed; a user by its last name."""
        found = {name: getattr(event, name) for name in _SHOWN if name in event.__struct_fields__}
        user = self._places.get(("user", getattr(event, "user_id", "")))
        shown = {name: value for name, value in found.items() if isinstance(value, bool) or value}
        return shown if user is None else {"user": user.name, **shown}

    def _above(self, thing: ThingKey) -> Iterator[tuple[ThingKey, str]]:
        place: ThingKey | None = thing
        passed = set[ThingKey]()  # places of a log with skipped commits may form a loop
        while place is not None and place not in passed:
            passed.add(place)
            known = self._places.get(place, LastPlace("", None))
            yield place, known.name
            place = known.parent

    def _before(self, since: datetime) -> int:
        """Return a sequence before the first commit that may be dated at this time."""
        index = bisect_left(self._marks, (since - MAX_SKEW, 0)) - 1
        return self._marks[index][1] - 1 if index >= 0 else 0


def _thing_of(stored: StoredCommit) -> ThingKey:
    return stored.commit.address.kind, stored.commit.address.id


def _decoded(message: RawMessage) -> StoredCommit | None:
    """Return the commit; None for one that cannot be read, which `parked list` shows."""
    try:
        return decode(message)
    except BadRequestError:
        return None
