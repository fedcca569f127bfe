"""The append port and what reads the log: one interface, kept by JetStream and by memory alike."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from runstream.commits import NewCommit, Position, StoredCommit
from runstream.errors import ConflictError
from runstream.subjects import Address, Subjects


class AppendConflictError(ConflictError):
    """The aggregate has moved on since the decision was made: load it again and decide anew."""

    def __init__(self, commit: NewCommit, last: StoredCommit | None) -> None:
        super().__init__(
            f"{commit.address.aggregate} has changed since version {commit.version - 1}",
            code="concurrentUpdate",
            details={"aggregate": commit.address.aggregate, "version": commit.version},
        )
        self.commit = commit
        self.last = last
        """The aggregate's last commit as the leader knows it; None where it is not known."""


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message of the log as it was read: not yet decoded."""

    subject: str
    position: Position
    data: bytes
    headers: dict[str, str]
    stored_at: datetime
    """The server's time in UTC."""


class Reader(Protocol):
    """Reads one partition in order, without a gap."""

    async def next_batch(self, limit: int = 500) -> list[RawMessage]:
        """The next messages, at least one; waits for it. Raises InternalError on a gap."""
        ...

    def pending(self) -> int:
        """How many messages the server still has for this reader, as of the last one read."""
        ...


class Log(Protocol):
    """One service's log in its current epoch."""

    subjects: Subjects
    partitions: int

    @property
    def epoch(self) -> int:
        """The epoch that is appended to."""
        ...

    async def append(self, commit: NewCommit) -> Position:
        """Append one commit; returns when it is durable.

        A commit that is in the log already (the same id) is a success. Raises AppendConflictError when the
        aggregate has moved on, BadRequestError when the commit is too large, InternalError when the log
        cannot be reached in time.
        """
        ...

    async def append_all(self, commits: Sequence[NewCommit]) -> list[Position | AppendConflictError]:
        """Append commits of different aggregates, grouped by partition; an answer for each, in order.

        Not atomic over the commits: one that is refused leaves the others appended.
        """
        ...

    async def last(self, address: Address) -> StoredCommit | None:
        """The aggregate's last commit, from the leader; an executor task is found whatever its executor.

        One that is skipped has no events, and the version that was decided. Raises BadRequestError for one that cannot
        be read.
        """
        ...

    async def history(self, address: Address) -> list[StoredCommit]:
        """All commits of the aggregate, in order; those that are skipped have no events. Raises as `last` does."""
        ...

    async def end(self, partition: int, *, at_least: int = 0) -> int:
        """The last sequence of the partition; 0 when it is empty.

        A caller that has seen `at_least` gets less only when that is certain, and not because an old leader answered.
        """
        ...

    async def origin(self, partition: int) -> str:
        """What tells the partition from one that was made anew in its place, as by a restore from the archive."""
        ...

    def read(self, partition: int, after: int, *, filters: Sequence[str] = ()) -> AbstractAsyncContextManager[Reader]:
        """Read a partition from the first message behind `after`; `filters` are subjects, possibly with wildcards."""
        ...
