"""One partition's commits for a worker: in order, and one that cannot be read stops nobody else's.

A commit that cannot be read is parked, with everything that follows it in the same aggregate, because nothing
can be applied behind a hole. Parking is by position and reason; the message stays where it is, and is read
again with the upcasters of the day when somebody retries. A commit that is known to be skipped is read as one
without events, whether it can be read or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from runstream.codec import decode
from runstream.commits import StoredCommit
from runstream.errors import BadRequestError
from runstream.log.port import Log, RawMessage, ReadableLog, Reader
from runstream.projections.fold import Parked
from runstream.skips import Skips
from runstream.subjects import Subjects, aggregate_of

Item: TypeAlias = StoredCommit | Parked
"""A commit that can be applied, or one that cannot."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What came next in a partition."""

    items: list[Item]
    """Those that can be applied, and those that cannot, each of these with its reason; in order."""
    last: int
    """The last sequence that is in the batch, applied or parked."""
    pending: int
    """How many messages the partition had behind it."""

    @property
    def commits(self) -> list[StoredCommit]:
        """Those that can be applied, in order."""
        return commits_of(self.items)


class PartitionFeed:
    """Makes batches of what a reader gives; knows which aggregates are parked."""

    def __init__(self, reader: Reader, parked: Iterable[str] = (), skips: Skips | None = None) -> None:
        """`parked` are the names of the aggregates (`run/<id>`) that have a parked commit already."""
        self._reader = reader
        self._parked = set(parked)
        self._skips = Skips() if skips is None else skips

    @property
    def parked(self) -> frozenset[str]:
        """The aggregates whose commits are parked."""
        return frozenset(self._parked)

    def batch(self, messages: Sequence[RawMessage]) -> Batch:
        """Return these messages, at least one, as commits, readable or not."""
        items = classify(messages, self._parked, self._skips)
        return Batch(items, messages[-1].position.sequence, self._reader.pending())

    def park(self, aggregate: str) -> None:
        """From now on park this aggregate's commits: one could be read, but not applied."""
        self._parked.add(aggregate)

    def unpark(self, aggregates: Collection[str]) -> None:
        """Let commits of these aggregates through again: no earlier one is parked any more."""
        self._parked.difference_update(aggregates)


def classify(messages: Sequence[RawMessage], parked: set[str], skips: Skips) -> list[Item]:
    """What can be applied, and what is parked; adds to `parked` the aggregates of what cannot be read."""
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
    """Those that can be applied."""
    return [item for item in items if isinstance(item, StoredCommit)]


def held_back(items: Iterable[Item], unfit: Collection[str], subjects: Subjects) -> Iterator[Item]:
    """The items in order; a commit of an aggregate that became `unfit` before it came is parked behind that.

    Who applies the items adds to `unfit` the aggregates of those that cannot be applied, and goes on.
    """
    for item in items:
        if isinstance(item, StoredCommit) and (aggregate := item.commit.address.aggregate) in unfit:
            subject = subjects.of(item.commit.address)
            yield Parked(item.position.sequence, subject, aggregate, behind(aggregate))
        else:
            yield item


def behind(aggregate: str) -> str:
    """Why a commit is parked that could be read."""
    return f"an earlier commit of {aggregate} is parked"


async def read_skips(log: ReadableLog, partition: int, up_to: int) -> Skips:
    """What is decided to be skipped in a partition, up to a sequence of it."""
    skips = Skips()
    if not up_to:
        return skips
    async with log.read(partition, 0, filters=[log.subjects.skips(partition)]) as reader:
        while reader.pending():
            messages = [one for one in await reader.next_batch() if one.position.sequence <= up_to]
            if not messages:
                break
            for stored in commits_of(classify(messages, set(), Skips())):
                skips.take(stored)
    return skips


async def read_again(log: Log, partition: int, sequences: Iterable[int]) -> list[RawMessage]:
    """The messages at these sequences of a partition, in order: what was parked and is to be tried again."""
    messages: list[RawMessage] = []
    for sequence in sorted(sequences):
        async with log.read(partition, sequence - 1) as reader:
            messages += await reader.next_batch(1)
    return messages
