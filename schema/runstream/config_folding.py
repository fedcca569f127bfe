"""The fold of the config service's log: its state, the version of each aggregate, and the commits that do not fit.

Every reader of this log (gateways, the projector, fsck, time travel) folds it with this class, from its first message
on, so that all park the same commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from msgspec import Struct

from runstream.codec import Message, decode
from runstream.commits import Head, NewCommit, Position, StoredCommit
from runstream.domain.config.fitting import Kind
from runstream.domain.config.state import Change, ConfigState
from runstream.errors import BadRequestError
from runstream.folding import UnfitCommitError, fitting
from runstream.ids import new_id
from runstream.skips import Skips
from runstream.subjects import CONFIG_KINDS, Address, aggregate_of

SERVICE = "config"
PARTITION = 0
"""The only partition of the config service."""


class ParkedConfig(Struct, frozen=True, gc=False):
    """A commit that could not be read or applied."""

    position: Position
    subject: str
    aggregate: str
    reason: str


@dataclass(slots=True)
class ConfigFold:
    """The state of the config service as of the sequence `after`."""

    skips: Skips = field(default_factory=Skips)
    """All decisions to skip commits, which have to be known before the first message."""
    state: ConfigState = field(default_factory=ConfigState)
    after: int = 0
    heads: dict[str, Head] = field(default_factory=dict)
    """The last commit of each aggregate (`project/<id>`)."""
    parked: dict[str, list[ParkedConfig]] = field(default_factory=dict)
    """The parked commits of each aggregate."""

    def take(self, message: Message) -> StoredCommit | ParkedConfig:
        """Apply the next message, or park it, and return which."""
        self.after = message.position.sequence
        skipped = self.skips.find(message)
        try:
            stored = decode(message) if skipped is None else skipped
            aggregate = stored.commit.address.aggregate if skipped is None else aggregate_of(message.subject)
        except BadRequestError as error:
            return self._park(message, aggregate_of(message.subject), error.message)
        if aggregate in self.parked:
            return self._park(message, aggregate, f"an earlier commit of {aggregate} is parked")
        try:
            self.apply(stored)
        except UnfitCommitError as error:
            return self._park(message, aggregate, str(error))
        return stored

    def apply(self, stored: StoredCommit) -> None:
        """Apply a commit. Raises UnfitCommitError, and then has changed nothing but the position."""
        self.after = stored.position.sequence
        commit, aggregate = stored.commit, stored.commit.address.aggregate
        if commit.events and commit.address.kind != "skip":
            if commit.address.kind not in CONFIG_KINDS:
                raise UnfitCommitError(f"{aggregate} is not an aggregate of the service {SERVICE}")
            before = self.version(aggregate)
            if commit.version != before + 1:
                raise UnfitCommitError(f"version {commit.version} of {aggregate} does not follow version {before}")
            with fitting(commit):
                self.state.apply(commit.address.kind, commit.address.id, commit.events, commit.time)
        self.heads[aggregate] = Head(commit.version, stored.position.sequence)

    def version(self, aggregate: str) -> int:
        """Return the version of an aggregate; 0 for a new one."""
        head = self.heads.get(aggregate)
        return head.version if head is not None else self.skips.begun(aggregate)

    @staticmethod
    def kind_and_id(aggregate: str) -> tuple[Kind, str]:
        """Return kind and id of an aggregate (`project/<id>`) that was applied."""
        kind, _, key = aggregate.partition("/")
        return cast("Kind", kind), key

    def commit_of(self, change: Change, *, time: datetime, actor: str, cause: str = "", trace: str = "") -> NewCommit:
        """Return the next commit of a thing, with the events of a decision on this state."""
        address = Address(PARTITION, change.kind, change.id)
        version = self.version(address.aggregate) + 1
        return NewCommit(new_id(), address, version, time, actor, cause, change.events, self.after, trace)

    def _park(self, message: Message, aggregate: str, reason: str) -> ParkedConfig:
        parked = ParkedConfig(message.position, message.subject, aggregate, reason)
        self.parked.setdefault(aggregate, []).append(parked)
        return parked

    @property
    def all_parked(self) -> Mapping[int, ParkedConfig]:
        """The parked commits by sequence."""
        return {one.position.sequence: one for parked in self.parked.values() for one in parked}
