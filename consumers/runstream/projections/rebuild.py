"""Rebuilding the projection beside the live one while that serves, and exchanging the two in one step.

    schema beside, empty -> every partition filled -> indexes -> caught up until few commits are missing
    -> all partitions owned: their workers stop -> the last commits -> tables exchanged -> workers start on the new rows

A rebuild writes rows and repeats no side effect. Killed at any moment, it leaves the old or the new projection, whole;
the next rebuild drops what is left of the schema beside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from runstream.commits import LogPosition
from runstream.database.connection import CONNECT_SECONDS, Connection, hung_up, lock_key
from runstream.database.database import Database
from runstream.database.failures import bounded, sqlstate
from runstream.errors import ConflictError, InternalError
from runstream.feed import read_skips, read_up_to
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import LogReader
from runstream.projections.ownership import own_all_partitions
from runstream.projections.rebuild_filling import Filled, fill_partition
from runstream.projections.rebuild_processes import OnDone, available_cpus, run_in_processes
from runstream.projections.rebuild_schema import apply_at_once, exchange, make_empty, make_indexes, schema_beside
from runstream.subjects import Subjects

ALONE_SECONDS = 5.0
"""Seconds to wait for another rebuild: Postgres takes two to notice that its process was killed."""
_LOCK_NOT_AVAILABLE = "55P03"


@asynccontextmanager
async def rebuild_lock(database: Database, seconds: float = ALONE_SECONDS) -> AsyncIterator[None]:
    """Hold the lock for building a projection beside this schema.

    Raises ConflictError when another process still holds it after `seconds`; the lock of a killed one is free by then.
    """
    async with hung_up(await database.connect(watchful=True)) as connection:
        if not await _locked(connection, lock_key(f"runstream rebuild {database.schema}"), seconds):
            raise ConflictError(
                "a rebuild, an import or the activation of an epoch is running already",
                code="rebuildGoesOn",
                hint="wait for its end, or stop it; one that was killed is over within seconds",
            )
        yield


async def _locked(connection: Connection, key: int, seconds: float) -> bool:
    """Return whether the lock was acquired within `seconds`."""
    try:
        async with bounded(asyncio.get_running_loop().time() + seconds + CONNECT_SECONDS):
            await connection.execute(f"SET lock_timeout = {max(1, int(seconds * 1000))}")
            await connection.execute("SELECT pg_advisory_lock($1)", key)
    except InternalError as error:
        if error.__cause__ is None or sqlstate(error.__cause__) != _LOCK_NOT_AVAILABLE:
            raise
        return False
    return True


NEAR = 2000
"""Commits that may be missing when the workers stop; filling them takes a moment."""
PASSES = 20
"""Passes of catching up before the rest, whatever its size, is filled with the workers stopped."""
MANY = 40_000
"""Commits from which worker processes pay off: starting one takes half a second."""
log = structlog.get_logger()

OnStage = Callable[[str, int, int], None]
"""Called with the stage, the amount done and the total."""


@dataclass(frozen=True, slots=True)
class RebuildPlace:
    """A log and the schema to fill from it."""

    nats_url: str
    database_url: str
    schema: str
    subjects: Subjects
    partitions: int


@dataclass(frozen=True, slots=True)
class FillFromLog:
    """One partition to fill from its stream."""

    place: RebuildPlace
    partition: int
    end: int
    """The last sequence to fill."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The result of a rebuild."""

    schema: str
    """The schema with the rows."""
    position: LogPosition
    parked: int
    """Number of parked commits."""


async def rebuild(nats_url: str, source: LogReader, database: Database, say: OnStage) -> Rebuilt:
    """Rebuild the live projection. Raises ConflictError while another rebuild or an import runs, InternalError."""
    beside = schema_beside(database.schema)
    place = RebuildPlace(nats_url, database.url, beside, source.subjects, source.partitions)
    async with rebuild_lock(database):
        indexes = await make_empty(database.url, beside)
        ends = await ends_of(source)
        filled = await fill(place, ends, say)
        say("making indexes", 0, 0)
        await make_indexes(database.url, beside, indexes)
        filled = await _caught_up(place, source, filled, say)
        async with own_all_partitions(database, source.subjects.namespace, source.subjects.service, source.partitions):
            filled = await fill(place, await ends_of(source), say, filled)
            await apply_at_once(database, [exchange(database, beside)])
    done = _rebuilt(database.schema, place, filled)
    log.info("The projection was rebuilt", action="projection_rebuilt", schema=database.schema, parked=done.parked)
    return done


async def rebuild_into(
    nats_url: str, source: LogReader, database_url: str, schema: str, until: LogPosition, say: OnStage
) -> Rebuilt:
    """Build the projection as of a position in a schema of its own, for inspection.

    Replaces the schema of an earlier rebuild. Raises ConflictError for any other schema of this name.
    """
    place = RebuildPlace(nats_url, database_url, schema, source.subjects, source.partitions)
    indexes = await make_empty(database_url, schema)
    filled = await fill(place, until.sequences, say)
    say("making indexes", 0, 0)
    await make_indexes(database_url, schema, indexes)
    return _rebuilt(schema, place, filled)


async def fill(place: RebuildPlace, ends: Sequence[int], say: OnStage, filled: Sequence[Filled] = ()) -> list[Filled]:
    """Fill all partitions up to these sequences, each from where the previous fill ended."""
    begins = [one.sequence for one in filled] or [0] * len(ends)
    works = [FillFromLog(place, partition, end) for partition, end in enumerate(ends)]
    sizes = [end - begin for begin, end in zip(begins, ends, strict=True)]
    tell = adding_up(say, "folding", sum(ends), sum(begins))
    return await run_in_processes(fill_from_log, works, sizes, available_cpus() if sum(sizes) > MANY else 1, tell)


def adding_up(say: OnStage, stage: str, total: int, done: int = 0) -> OnDone:
    """Return a function that reports a stage's progress: it adds up the amounts that it is called with."""

    def tell(further: int) -> None:
        nonlocal done
        done += further
        say(stage, done, total)

    return tell


async def fill_from_log(work: FillFromLog, tell: OnDone) -> Filled:
    """Fill one partition from its stream."""
    place = work.place
    async with (
        Database(place.database_url, place.schema, pool_size=1, application="runstream rebuild") as database,
        nats_connection(place.nats_url, "runstream rebuild") as client,
    ):
        log = LogReader(client, place.subjects, place.partitions)
        skips = await read_skips(log, work.partition, work.end)
        return await fill_partition(
            database,
            place.subjects,
            work.partition,
            lambda after: read_up_to(log, work.partition, work.end, after=after),
            tell,
            skips,
        )


async def ends_of(source: LogReader) -> tuple[int, ...]:
    """Return the last sequence of each partition."""
    return tuple(await asyncio.gather(*(source.end(partition) for partition in range(source.partitions))))


async def _caught_up(place: RebuildPlace, source: LogReader, filled: list[Filled], say: OnStage) -> list[Filled]:
    """Fill what was appended in the meantime, until at most `NEAR` commits are missing."""
    for _ in range(PASSES):
        ends = await ends_of(source)
        if sum(ends) - sum(one.sequence for one in filled) <= NEAR:
            break
        filled = await fill(place, ends, say, filled)
    return filled


def _rebuilt(schema: str, place: RebuildPlace, filled: Sequence[Filled]) -> Rebuilt:
    position = LogPosition(place.subjects.epoch, tuple(one.sequence for one in filled))
    return Rebuilt(schema, position, sum(one.parked for one in filled))
