"""The interface of a log, and the loop that decides on its newest state and appends.

`runstream.log.jetstream` implements it; the tests have one in memory that passes the same suite.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from msgspec import Struct

from runstream.commits import Head, NewCommit, Position, StoredCommit
from runstream.errors import ConflictError
from runstream.subjects import Address, Subjects


class AppendConflictError(ConflictError):
    """The aggregate has changed since the decision: load it and decide again."""

    def __init__(self, commit: NewCommit, last: StoredCommit | None) -> None:
        super().__init__(
            f"{commit.address.aggregate} has changed since version {commit.version - 1}",
            code="concurrentUpdate",
            details={"aggregate": commit.address.aggregate, "version": commit.version},
        )
        self.commit = commit
        self.last = last
        """The aggregate's last commit at the leader; None where it is unknown."""


MAX_BATCH_COMMITS = 1000
"""Maximum number of commits of a batch; NATS takes no more."""


class LogMovedError(ConflictError):
    """The partition has grown since the decision: read on and decide again."""

    def __init__(self, after: int, following: int) -> None:
        super().__init__(
            f"the log has grown since position {after}",
            code="concurrentUpdate",
            details={"after": after, "following": following},
            hint="try again",
        )
        self.following = following
        """A sequence that the partition has reached."""


class RawMessage(Struct, frozen=True, gc=False):
    """A message of the log, not yet decoded."""

    subject: str
    position: Position
    data: bytes
    headers: dict[str, str]
    stored_at: datetime
    """Time at which the server stored it, in UTC."""


class Reader(Protocol):
    """A reader of one partition, in order and without a gap."""

    async def next_batch(self, limit: int = 500, *, wait: bool = True) -> list[RawMessage]:
        """Wait for the next messages, at least one; without `wait`, return none when the log has none.

        Raises InternalError on a gap.
        """

    def pending(self) -> int:
        """Return the number of messages that the server still has for this reader, as of the last one read."""


class ReadableLog(Protocol):
    """A log that is read partition by partition, as exports, archives and rebuilds do."""

    subjects: Subjects
    partitions: int

    @property
    def epoch(self) -> int:
        """The epoch of these subjects."""

    async def end(self, partition: int, *, at_least: int = 0) -> int:
        """Return the sequence of the partition's last message; 0 when it is empty.

        A caller that has seen `at_least` gets less only when that is certain, never because an old leader answered.
        """

    def read(self, partition: int, after: int, *, filters: Sequence[str] = ()) -> AbstractAsyncContextManager[Reader]:
        """Read a partition from the first message behind `after`; `filters` are subjects, possibly with wildcards."""


class Log(ReadableLog, Protocol):
    """One service's log in its current epoch."""

    async def append(self, commit: NewCommit) -> Position:
        """Append one commit and return once it is durable.

        A commit whose id is in the log already is a success. Raises AppendConflictError when the aggregate has changed,
        BadRequestError for a commit that is too large, InternalError when the log cannot be reached in time.
        """

    async def append_all(self, commits: Sequence[NewCommit]) -> list[Position | AppendConflictError]:
        """Append commits of different aggregates, grouped by partition; return a result for each, in order.

        This is not atomic: a refused commit leaves the others appended.
        """

    async def append_batch(self, commits: Sequence[NewCommit], after: int) -> list[Position]:
        """Append commits of different aggregates of one partition, all or none, if the partition ends at `after`.

        Return their positions once they are durable; commits that are in the log already are a success. Raises
        LogMovedError when the partition has grown, and what `append` raises. At most MAX_BATCH_COMMITS.
        """

    async def last(self, address: Address) -> StoredCommit | None:
        """Return the aggregate's last commit, from the leader; an executor task is found without its executor's id.

        A skipped commit has no events, and the version that the skip decided. Raises BadRequestError for a commit that
        cannot be read.
        """

    async def first(self, address: Address) -> StoredCommit | None:
        """Return the aggregate's first commit, as `last` returns the last one. Raises as `last` does."""

    async def history(self, address: Address) -> list[StoredCommit]:
        """Return all commits of the aggregate, in order; skipped ones have no events. Raises as `last` does."""

    async def messages(self, partition: int, subjects: Sequence[str]) -> list[RawMessage]:
        """Return all messages on these subjects (wildcards allowed), in the order of the log.

        Faster than `read` with filters, which scans the partition: for the messages of a few aggregates. Raises
        InternalError when the log cannot be reached in time.
        """

    async def origin(self, partition: int) -> str:
        """Return a value that differs once the partition is made again, as by a restore from the archive."""


S = TypeVar("S")
ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Appended:
    """A decision in the log."""

    commit: NewCommit
    position: Position


async def decide_and_append(
    log: Log,
    load: Callable[[Position | None], Awaitable[tuple[S, Head]]],
    decide: Callable[[S, Head], NewCommit | None],
    *,
    attempts: int = ATTEMPTS,
) -> Appended | None:
    """Decide on the newest state and append the decision; None when there is nothing to append.

    `load` returns the aggregate's state and head, at least as of the position that it gets (None: as it is now).
    `decide` is pure, and may be called again with a newer state. Raises what `load`, `decide` and `append` raise,
    and AppendConflictError after `attempts` conflicts.
    """
    at_least: Position | None = None
    for attempt in range(1, attempts + 1):
        state, head = await load(at_least)
        commit = decide(state, head)
        if commit is None:
            return None
        try:
            return Appended(commit, await log.append(commit))
        except AppendConflictError as conflict:
            if attempt == attempts:
                raise
            at_least = conflict.last.position if conflict.last is not None else at_least
    raise ValueError(f"attempts must be at least 1 (got {attempts})")
