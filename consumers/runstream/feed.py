"""The commits of a partition in order, readable or parked: an unreadable commit stops its own aggregate only.

An unreadable commit is parked together with all later commits of its aggregate, because an aggregate is folded without
gaps. Parking notes position and reason; the message stays in the log, and a retry decodes it with the current
upcasters. A skipped commit counts as one without events, readable or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from runstream.codec import decode
from runstream.commits import Position, StoredCommit
from runstream.errors import BadRequestError, InternalError
from runstream.folding import UnfitCommitError
from runstream.log.port import Log, RawMessage, ReadableLog, Reader
from runstream.log.reader import PAUSE_SECONDS
from runstream.projections.fold import Parked, PartitionFold
from runstream.skips import Skips
from runstream.subjects import Subjects, aggregate_of


class EndLostError(InternalError):
    """The last messages of a partition were lost after a reader had asked for its end."""

    def __init__(self, partition: int, first: int, last: int) -> None:
        positions = f"position {first}" if first == last else f"positions {first} to {last}"
        super().__init__(
            f"{positions} of partition {partition} {'was' if first == last else 'were'} lost while the log was read: "
            f"it ends at {first - 1} now",
            code="endLost",
            details={"partition": partition, "first": first, "last": last, "end": first - 1},
            hint="was a disk of NATS full? See `runstream doctor`; then do it again: it reads what the log has now",
        )


Item: TypeAlias = StoredCommit | Parked
"""A commit to apply, or a parked one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The next commits of a partition."""

    items: list[Item]
    """The commits, applicable or parked, in order."""
    last: int
    """Last sequence of the batch."""
    pending: int
    """Number of messages after the batch."""

    @property
    def commits(self) -> list[StoredCommit]:
        """The applicable commits, in order."""
        return commits_of(self.items)


class PartitionFeed:
    """A maker of batches from messages; it knows the parked aggregates."""

    def __init__(self, reader: Reader, parked: Iterable[str] = (), skips: Skips | None = None) -> None:
        """`parked` has the names (`run/<id>`) of aggregates with parked commits."""
        self._reader = reader
        self._parked = set(parked)
        self._skips = Skips() if skips is None else skips

    @property
    def parked(self) -> frozenset[str]:
        """Names of the parked aggregates."""
        return frozenset(self._parked)

    def batch(self, messages: Sequence[RawMessage]) -> Batch:
        """Decode these messages, at least one."""
        items = classify(messages, self._parked, self._skips)
        return Batch(items, messages[-1].position.sequence, self._reader.pending())

    def park(self, aggregate: str) -> None:
        """Park the further commits of an aggregate, one of which could not be applied."""
        self._parked.add(aggregate)

    def unpark(self, aggregates: Collection[str]) -> None:
        """Stop parking the commits of these aggregates: no earlier one is parked now."""
        self._parked.difference_update(aggregates)


def classify(messages: Sequence[RawMessage], parked: set[str], skips: Skips) -> list[Item]:
    """Decode messages into applicable and parked commits; add aggregates with unreadable commits to `parked`."""
    items: list[Item] = []
    for message in messages:
        skipped = skips.find(message)
        try:
            stored = decode(message) if skipped is None else skipped
        except BadRequestError as error:
            aggregate, reason = aggregate_of(message.subject), error.message
            parked.add(aggregate)
        else:
            aggregate = stored.commit.address.aggregate if skipped is None else aggregate_of(message.subject)
            if aggregate not in parked:
                items.append(stored)
                continue
            reason = behind(aggregate)
        items.append(Parked(message.position.sequence, message.subject, aggregate, reason))
    return items


def commits_of(items: Iterable[Item]) -> list[StoredCommit]:
    """Return the applicable commits."""
    return [item for item in items if isinstance(item, StoredCommit)]


def refuse(items: Iterable[Item], refused: Mapping[int, str], subjects: Subjects) -> list[Item]:
    """Park the commits at the sequences in `refused`, each with its reason; a skipped commit has nothing to refuse."""
    return [
        _parked(item, refused[item.position.sequence], subjects)
        if isinstance(item, StoredCommit) and item.commit.events and item.position.sequence in refused
        else item
        for item in items
    ]


def fold_or_park(fold: PartitionFold, items: Iterable[Item], subjects: Subjects) -> Iterator[Item]:
    """Apply the items in order; yield each commit once it is applied, and each that is parked.

    A commit that does not fit is parked, and with it the later commits of its aggregate.
    """
    parked: set[str] = set()
    for item in items:
        outcome: Item = item
        if isinstance(item, StoredCommit):
            aggregate = item.commit.address.aggregate
            if aggregate in parked:
                outcome = _parked(item, behind(aggregate), subjects)
            else:
                try:
                    fold.apply(item)
                except UnfitCommitError as error:
                    outcome = _parked(item, str(error), subjects)
        if isinstance(outcome, Parked):
            parked.add(outcome.aggregate)
            fold.park(outcome.sequence, outcome.subject, outcome.aggregate, outcome.reason)
        yield outcome


def _parked(stored: StoredCommit, reason: str, subjects: Subjects) -> Parked:
    address = stored.commit.address
    return Parked(stored.position.sequence, subjects.of(address), address.aggregate, reason)


def behind(aggregate: str) -> str:
    """Return the reason to park a readable commit."""
    return f"an earlier commit of {aggregate} is parked"


async def read_up_to(
    log: ReadableLog, partition: int, end: int, *, after: int = 0, filters: Sequence[str] = (), limit: int = 1000
) -> AsyncGenerator[list[RawMessage], None]:
    """Yield the messages behind `after` up to the sequence `end`, which the log has, in batches of at most `limit`.

    Raises EndLostError when the log lost its last messages after it was asked for its end; with filters, it ends there.
    """
    if after >= end:
        return
    async with log.read(partition, after, filters=filters) as reader:
        while after < end:
            messages = await next_up_to(log, partition, reader, after, end, limit, filtered=bool(filters))
            if not messages:
                return
            after = messages[-1].position.sequence
            yield messages if after <= end else [one for one in messages if one.position.sequence <= end]


def is_lost(message: RawMessage, subjects: Subjects) -> bool:
    """Return whether this stands for a message that NATS has lost."""
    at = message.position
    return not message.data and message.subject == subjects.lost(at.partition, at.sequence)


async def next_up_to(
    log: ReadableLog,
    partition: int,
    reader: Reader,
    after: int,
    end: int,
    limit: int,
    *,
    filtered: bool = False,
) -> list[RawMessage]:
    """Return the next messages of a reader that is at `after`, of which the log had some up to the sequence `end`.

    None is returned to a filtered reader that has read all. Raises EndLostError when the messages are lost.
    """
    while not (messages := await reader.next_batch(limit, wait=False)) and not filtered:
        now = await log.end(partition, at_least=end)
        if now < end:
            raise EndLostError(partition, max(now, after) + 1, end)
        # The reader's server is behind the leader.
        await asyncio.sleep(PAUSE_SECONDS)
    return messages


async def read_skip_decisions(log: ReadableLog, partition: int, end: int) -> list[StoredCommit]:
    """Return the readable commits with skip decisions of a partition, up to the sequence `end`."""
    batches = read_up_to(log, partition, end, filters=[log.subjects.skips(partition)])
    return [stored async for messages in batches for stored in commits_of(classify(messages, set(), Skips()))]


async def read_skips(log: ReadableLog, partition: int, end: int) -> Skips:
    """Return the skips decided in a partition, up to the sequence `end`."""
    return Skips.of(await read_skip_decisions(log, partition, end))


async def read_again(log: Log, partition: int, sequences: Iterable[int]) -> list[RawMessage]:
    """Read the messages at these sequences of a partition again, in order; a lost one is without content."""
    messages: list[RawMessage] = []
    for sequence in sorted(sequences):
        async with log.read(partition, sequence - 1) as reader:
            try:
                messages += await next_up_to(log, partition, reader, sequence - 1, sequence, 1)
            except EndLostError:
                position = Position(log.epoch, partition, sequence)
                lost = RawMessage(log.subjects.lost(partition, sequence), position, b"", {}, datetime.now(UTC))
                messages.append(lost)
    return messages
