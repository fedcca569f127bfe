"""One partition's commits for a worker: in order, and one that cannot be read stops nobody else's.

A commit that cannot be read is parked, with everything that follows it in the same aggregate, because nothing
can be applied behind a hole. Parking is by position and reason; the message stays where it is, and is read
again with the upcasters of the day when somebody retries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runstream.codec import decode
from runstream.commits import StoredCommit
from runstream.errors import BadRequestError
from runstream.log.port import Log, RawMessage, Reader
from runstream.projections.fold import Parked
from runstream.subjects import parse_subject


@dataclass(frozen=True, slots=True)
class Batch:
    """What came next in a partition."""

    commits: list[StoredCommit]
    """Those that can be applied, in order."""
    parked: list[Parked]
    """Those that cannot, in order, each with its reason."""
    last: int
    """The last sequence that is in the batch, applied or parked."""
    pending: int
    """How many messages the partition had behind it."""


class PartitionFeed:
    """Reads one partition through a reader; knows which aggregates are parked."""

    def __init__(self, reader: Reader, parked: Iterable[str] = ()) -> None:
        """`parked` are the names of the aggregates (`run/<id>`) that have a parked commit already."""
        self._reader = reader
        self._parked = set(parked)

    @property
    def parked(self) -> frozenset[str]:
        """The aggregates whose commits are parked."""
        return frozenset(self._parked)

    async def next_batch(self, limit: int = 500) -> Batch:
        """The next commits, at most `limit`; waits until there is at least one, readable or not."""
        messages = await self._reader.next_batch(limit)
        commits, parked = classify(messages, self._parked)
        return Batch(commits, parked, messages[-1].position.sequence, self._reader.pending())

    def park(self, aggregate: str) -> None:
        """From now on park this aggregate's commits: one could be read, but not applied."""
        self._parked.add(aggregate)

    def unpark(self, aggregate: str) -> None:
        """Its parked commits were applied after all."""
        self._parked.discard(aggregate)


def classify(messages: Sequence[RawMessage], parked: set[str]) -> tuple[list[StoredCommit], list[Parked]]:
    """What can be applied, and what is parked; adds to `parked` the aggregates of what cannot be read."""
    commits: list[StoredCommit] = []
    aside: list[Parked] = []
    for message in messages:
        try:
            stored = decode(message)
        except BadRequestError as error:
            aggregate = aggregate_of(message.subject)
            parked.add(aggregate)
            aside.append(Parked(message.position.sequence, message.subject, aggregate, error.message))
            continue
        aggregate = stored.commit.address.aggregate
        if aggregate in parked:
            reason = f"an earlier commit of {aggregate} is parked"
            aside.append(Parked(message.position.sequence, message.subject, aggregate, reason))
        else:
            commits.append(stored)
    return commits, aside


def aggregate_of(subject: str) -> str:
    """The aggregate that a subject stands for; the subject itself when it is not one of ours."""
    try:
        return parse_subject(subject).aggregate
    except BadRequestError:
        return subject


async def read_again(log: Log, partition: int, sequences: Iterable[int]) -> list[RawMessage]:
    """The messages at these sequences of a partition, in order: what was parked and is to be tried again."""
    messages: list[RawMessage] = []
    for sequence in sorted(sequences):
        async with log.read(partition, sequence - 1) as reader:
            messages += await reader.next_batch(1)
    return messages
