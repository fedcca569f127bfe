"""The log in memory: the same answers as JetStream's, for tests that need no server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runstream.codec import ID_HEADER, decode, encode
from runstream.commits import NewCommit, Position, StoredCommit
from runstream.counting import counted
from runstream.errors import BadRequestError, InternalError
from runstream.ids import new_id
from runstream.log.port import AppendConflictError, LogMovedError, RawMessage
from runstream.skips import Skips
from runstream.subjects import Address, Subjects

MAX_BODY_BYTES = (1 << 20) - 1024
"""As a NATS server with its default settings accepts."""


@dataclass(slots=True)
class _Stream:
    messages: list[RawMessage] = field(default_factory=list)
    aggregates: dict[str, list[RawMessage]] = field(default_factory=dict)
    """By guard: an executor task's, whatever its executor."""
    skips: list[RawMessage] = field(default_factory=list)
    """Those that decide that commits are skipped."""
    origin: str = field(default_factory=new_id)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    """Replaced when it is set, so that each growth wakes everybody once."""

    def add(self, guard: str, message: RawMessage) -> None:
        self.messages.append(message)
        if message.subject.split(".")[4] == "skip":
            self.skips.append(message)
        self.aggregates.setdefault(guard, []).append(message)
        self.grown.set()
        self.grown = asyncio.Event()


class MemoryLog:
    """One service's log in this process (see `runstream.log.port.Log`)."""

    def __init__(self, namespace: str = "memory", service: str = "runs", *, partitions: int = 4) -> None:
        self.subjects = Subjects(namespace, service, 1)
        self.partitions = partitions
        self.streams = [_Stream() for _ in range(partitions)]

    @property
    def epoch(self) -> int:
        """The epoch that is appended to."""
        return self.subjects.epoch

    async def append(self, commit: NewCommit) -> Position:
        """Append one commit (see the port)."""
        (answer,) = await self.append_all([commit])
        if isinstance(answer, AppendConflictError):
            raise answer
        return answer

    async def append_all(self, commits: Sequence[NewCommit]) -> list[Position | AppendConflictError]:
        """Append commits of different aggregates (see the port)."""
        encoded = [encode(commit) for commit in commits]
        for commit, (body, _) in zip(commits, encoded, strict=True):
            if len(body) > MAX_BODY_BYTES:
                raise BadRequestError(
                    f"the commit of {commit.address.aggregate} takes {counted(len(body), 'byte')}",
                    code="commitTooLarge",
                )
        return [self._append(commit, *parts) for commit, parts in zip(commits, encoded, strict=True)]

    async def append_batch(self, commits: Sequence[NewCommit], after: int) -> list[Position]:
        """Append commits of one partition, all or none (see the port)."""
        partition = commits[0].address.partition
        stream = self.streams[partition]
        if stream.messages[after:]:
            if stream.messages[after].headers.get(ID_HEADER) != commits[0].id:
                raise LogMovedError(after, len(stream.messages))
            return [message.position for message in stream.messages[after : after + len(commits)]]
        for commit in commits:
            body, headers = encode(commit)
            position = Position(self.epoch, partition, len(stream.messages) + 1)
            message = RawMessage(self.subjects.of(commit.address), position, body, headers, datetime.now(UTC))
            stream.add(self.subjects.guard(commit.address), message)
        return [message.position for message in stream.messages[after:]]

    async def last(self, address: Address) -> StoredCommit | None:
        """The aggregate's last commit (see the port)."""
        return next(reversed(self._history(self._of(address)[-1:], address)), None)

    async def first(self, address: Address) -> StoredCommit | None:
        """The aggregate's first commit (see the port)."""
        return next(iter(self._history(self._of(address)[:1], address)), None)

    async def history(self, address: Address) -> list[StoredCommit]:
        """All commits of the aggregate, in order (see the port)."""
        return self._history(self._of(address), address)

    async def end(self, partition: int, *, at_least: int = 0) -> int:
        """The last sequence of the partition; 0 when it is empty."""
        return len(self.streams[partition].messages)

    async def origin(self, partition: int) -> str:
        """What tells the partition from one that was made anew in its place (see the port)."""
        return self.streams[partition].origin

    async def messages(self, partition: int, subjects: Sequence[str]) -> list[RawMessage]:
        """All messages on these subjects (see the port)."""
        patterns = [subject.split(".") for subject in subjects]
        return [
            message
            for message in self.streams[partition].messages
            if any(_matches(pattern, message.subject.split(".")) for pattern in patterns)
        ]

    @asynccontextmanager
    async def read(self, partition: int, after: int, *, filters: Sequence[str] = ()) -> AsyncIterator[MemoryReader]:
        """Read a partition from the first message behind `after` (see the port)."""
        stream = self.streams[partition]
        if after > len(stream.messages):
            raise InternalError(
                f"position {after} is ahead of partition {partition}, which ends at {len(stream.messages)}",
                code="positionAheadOfLog",
            )
        yield MemoryReader(stream, after, filters)

    def put(self, partition: int, subject: str, data: bytes, headers: dict[str, str] | None = None) -> Position:
        """Store any message, as something else than Runstream might: for tests of what cannot be read."""
        stream = self.streams[partition]
        position = Position(self.epoch, partition, len(stream.messages) + 1)
        stream.add(subject, RawMessage(subject, position, data, headers or {}, datetime.now(UTC)))
        return position

    def _append(self, commit: NewCommit, body: bytes, headers: dict[str, str]) -> Position | AppendConflictError:
        address = commit.address
        stream, guard, history = self.streams[address.partition], self.subjects.guard(address), self._of(address)
        for message in history:
            if message.headers.get(ID_HEADER) == commit.id:
                return message.position
        if (history[-1].position.sequence if history else 0) != commit.expected:
            return AppendConflictError(commit, decode(history[-1]) if history else None)
        position = Position(self.epoch, address.partition, len(stream.messages) + 1)
        stream.add(guard, RawMessage(self.subjects.of(address), position, body, headers, datetime.now(UTC)))
        return position

    def _history(self, messages: Sequence[RawMessage], address: Address) -> list[StoredCommit]:
        pattern = self.subjects.skips_of(address).split(".")
        decided = self.streams[address.partition].skips
        skips = Skips.of(decode(one) for one in decided if _matches(pattern, one.subject.split(".")))
        return [skips.find(message) or decode(message) for message in messages]

    def _of(self, address: Address) -> list[RawMessage]:
        return self.streams[address.partition].aggregates.get(self.subjects.guard(address), [])


class MemoryReader:
    """Reads one partition."""

    def __init__(self, stream: _Stream, after: int, filters: Sequence[str]) -> None:
        self._stream = stream
        self._after = after
        self._filters = [subject.split(".") for subject in filters]

    async def next_batch(self, limit: int = 500, *, wait: bool = True) -> list[RawMessage]:
        """The next messages (see the port)."""
        while True:
            grown = self._stream.grown
            batch: list[RawMessage] = []
            while self._after < len(self._stream.messages) and len(batch) < limit:
                message = self._stream.messages[self._after]
                self._after += 1
                if self._wanted(message):
                    batch.append(message)
            if batch or not wait:
                return batch
            await grown.wait()

    def pending(self) -> int:
        """How many messages are left."""
        return sum(map(self._wanted, self._stream.messages[self._after :]))

    def _wanted(self, message: RawMessage) -> bool:
        return not self._filters or any(_matches(f, message.subject.split(".")) for f in self._filters)


def _matches(pattern: list[str], tokens: list[str]) -> bool:
    if pattern[-1] == ">":
        return len(tokens) >= len(pattern) and _matches(pattern[:-1], tokens[: len(pattern) - 1])
    return len(pattern) == len(tokens) and all(p in ("*", t) for p, t in zip(pattern, tokens, strict=True))
