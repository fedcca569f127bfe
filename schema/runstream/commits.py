"""Commits: the events of one decision about one aggregate, before and after they are in the log.

A `NewCommit` is to be appended; a `DecodedCommit` is decoded from a message of the log; a `StoredCommit` is a decoded
commit with its position. One commit is one message, appended or refused as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.ids import commit_id, new_id
from runstream.subjects import Address

_TOKEN = re.compile(r"([0-9]{1,18}):([0-9]{1,18}(?:,[0-9]{1,18}){0,255})")
_PLACE = re.compile(r"([0-9]{1,18})/([0-9]{1,18})/([0-9]{1,18})")


class Position(Struct, frozen=True, order=True, gc=False):
    """The position of one commit: the sequence of its message in the stream of its partition and epoch."""

    epoch: int
    partition: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}/{self.partition}/{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Parse `EPOCH/PARTITION/SEQUENCE`, as a file may hold it with a line end. Raises BadRequestError."""
        match = _PLACE.fullmatch(text.strip())
        if match is None:
            raise BadRequestError(
                f"{text[:80]!r} is not the position of a commit",
                code="invalidPosition",
                hint="a position is EPOCH/PARTITION/SEQUENCE, as in 1/0/812",
            )
        return cls(*map(int, match.groups()))


class LogPosition(Struct, frozen=True, gc=False):
    """A place in the whole log: the last included sequence of each partition (0 for none)."""

    epoch: int
    sequences: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.epoch}:{','.join(map(str, self.sequences))}"

    @classmethod
    def parse(cls, text: str) -> LogPosition:
        """Parse `EPOCH:SEQ,SEQ,…` (one sequence for each partition), as a file may hold it with a line end.

        Raises BadRequestError.
        """
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise BadRequestError(
                f"{text[:80]!r} is not a position of the log",
                code="invalidPosition",
                hint="a position is EPOCH:SEQUENCE,… with one sequence for each partition, as in 1:812,40,0,97",
            )
        return cls(int(match[1]), tuple(int(part) for part in match[2].split(",")))

    def including(self, position: Position) -> LogPosition:
        """Return this place, advanced to include that commit."""
        moved = list(self.sequences)
        moved[position.partition] = max(moved[position.partition], position.sequence)
        return LogPosition(self.epoch, tuple(moved))


def parse_point(text: str) -> LogPosition | Position | datetime:
    """Parse a point in the history of a log: a place in the whole log, the position of a commit, or a time with its
    zone.

    The forms are `EPOCH:SEQUENCE,…`, `EPOCH/PARTITION/SEQUENCE` and ISO 8601. Raises BadRequestError.
    """
    stripped = text.strip()
    if _TOKEN.fullmatch(stripped):
        return LogPosition.parse(stripped)
    if _PLACE.fullmatch(stripped):
        return Position.parse(stripped)
    try:
        moment = datetime.fromisoformat(stripped)
        if moment.tzinfo is None:
            raise ValueError("it has no zone")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadRequestError(
            f"{text[:80]!r} is neither a time with its zone nor a position of the log",
            code="invalidPoint",
            hint="a time is like 2026-11-23T09:30:00Z, a position like 1:812,40,0,97 or, of one commit, 1/0/812",
        ) from error


class NewCommit(Struct, frozen=True, gc=False):
    """A commit that is to be appended."""

    id: str
    address: Address
    version: int
    """1 for the aggregate's first commit, increasing by one."""
    time: datetime
    """When it was decided, in UTC."""
    actor: str
    """The author of the decision: `user:<name>`, `scheduler`, `executor:<id>` …"""
    cause: str
    """The id of the commit that caused this one; empty for a cause outside the log."""
    events: tuple[DomainEvent, ...]
    expected: int
    """The last sequence of the aggregate's subject when the decision was made; 0 for a new aggregate."""
    trace: str = ""
    """W3C traceparent of the run, or empty."""


class DecodedCommit(Struct, frozen=True, gc=False):
    """A commit as the log says it."""

    id: str
    address: Address
    version: int
    time: datetime
    actor: str
    cause: str
    events: tuple[DomainEvent, ...]
    trace: str = ""


class StoredCommit(Struct, frozen=True, gc=False):
    """A commit with its position in the log."""

    commit: DecodedCommit
    position: Position
    stored_at: datetime
    """The server's time in UTC; for lag only, never for decisions."""


class Head(Struct, frozen=True, gc=False):
    """The last commit of an aggregate, on which the next one builds."""

    version: int = 0
    sequence: int = 0

    def next_commit(
        self,
        address: Address,
        events: Sequence[DomainEvent],
        *,
        time: datetime,
        actor: str,
        cause: str = "",
        trace: str = "",
        identity: str = "",
    ) -> NewCommit:
        """Return the next commit, with these events. Its id is `identity`, or else derived from the cause, or else
        random."""
        version = self.version + 1
        identity = identity or (commit_id(cause, address.aggregate, version) if cause else new_id())
        return NewCommit(identity, address, version, time, actor, cause, tuple(events), self.sequence, trace)
