"""What is parked in a log as of the positions of an export: its manifest names it, so that it is no surprise elsewhere.

The rows know what is parked now. What was skipped by a decision behind the positions was parked as of them: so it is
looked for, and named as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import structlog

from runstream.commits import Position
from runstream.database.database import Database
from runstream.database.freshness import Freshness
from runstream.errors import BadRequestError, InternalError
from runstream.log.port import ReadableLog
from runstream.projections import parked
from runstream.projections.parked import Decided, list_decided
from runstream.skips import hash_of
from runstream.snapshots.manifest import ParkedCommit
from runstream.subjects import aggregate_of

MAX_NAMED = 100_000
"""Aggregates: some 30 MB of a manifest."""
FRESH_SECONDS = 5.0
"""How long the projection is waited for, so that what was appended last is known as parked."""
_REASON = 1000
log = structlog.get_logger()


async def parked_at(source: ReadableLog, database: Database, positions: Sequence[int]) -> tuple[ParkedCommit, ...]:
    """The first parked commit of each aggregate, as of these positions (0: nothing of the partition).

    Nothing when the database does not answer, which is told. Raises BadRequestError when there are too many,
    InternalError when the log fails.
    """
    subjects = source.subjects
    try:
        listed = await _listed(source.epoch, database, positions)
    except InternalError as error:
        log.warning(
            f"the database does not say what is parked, and a snapshot with parked commits is refused where it is "
            f"imported: {error.message}",
            action="export_parked_unknown",
        )
        return ()
    found = [
        ParkedCommit(
            partition=one.position.partition,
            sequence=one.position.sequence,
            subject=one.subject.split(".", 4)[-1],
            reason=one.reason[:_REASON],
        )
        for one in listed
    ]
    for decided in await list_decided(source):
        if decided.position.sequence > positions[decided.position.partition]:
            found += await _skipped_later(source, decided, positions[decided.position.partition])
    within = (one for one in found if one.sequence <= positions[one.partition])
    firsts: dict[str, ParkedCommit] = {}
    for one in sorted(within, key=lambda one: (one.partition, one.sequence)):
        firsts.setdefault(f"{one.partition} {aggregate_of(f'{subjects.prefix(one.partition)}.{one.subject}')}", one)
    return tuple(_not_too_many(firsts.values()))


async def _listed(epoch: int, database: Database, positions: Sequence[int]) -> tuple[parked.ParkedCommit, ...]:
    """What the rows say is parked, once they have come to the positions."""
    freshness = Freshness(database)
    try:
        await freshness.start()
        wanted = [Position(epoch, partition, sequence) for partition, sequence in enumerate(positions) if sequence]
        await freshness.wait_for(*wanted, timeout=FRESH_SECONDS)
    except InternalError as error:
        log.warning(f"what is parked is known up to the rows only: {error.message}", action="export_parked_behind")
    finally:
        await freshness.stop()
    async with database.snapshot() as transaction:
        return await parked.list_parked(transaction, epoch=epoch)


async def _skipped_later(source: ReadableLog, decided: Decided, end: int) -> list[ParkedCommit]:
    """The commits up to `end` that the decision is about."""
    if not end:
        return []
    partition = decided.position.partition
    subject = f"{source.subjects.prefix(partition)}.{decided.subject}"
    reason = f"it was skipped later, at {decided.position}: {decided.reason}"[:_REASON]
    found: list[ParkedCommit] = []
    async with source.read(partition, 0, filters=[subject]) as reader:
        while reader.pending():
            for message in await reader.next_batch():
                if message.position.sequence <= end and await asyncio.to_thread(hash_of, message) == decided.sha256:
                    sequence = message.position.sequence
                    found.append(
                        ParkedCommit(partition=partition, sequence=sequence, subject=decided.subject, reason=reason)
                    )
    return found


def _not_too_many(parked: Iterable[ParkedCommit]) -> list[ParkedCommit]:
    listed = list(parked)
    if len(listed) > MAX_NAMED:
        raise BadRequestError(
            f"more runs and tasks have parked commits than a snapshot can name ({len(listed)}, at most {MAX_NAMED})",
            code="tooManyParked",
            hint="was the log written by a newer Runstream? Export it with that one",
        )
    return listed
