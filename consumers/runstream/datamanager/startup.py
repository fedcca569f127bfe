"""What happens to the log before anything of a process uses it: it is found, begun, restored, or the start is refused.

Every process that has the database does this first, one at a time; the others wait until the log is described.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import orjson
import structlog
from nats.aio.client import Client
from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert

from runstream import tables
from runstream.counting import counted
from runstream.database.connection import hang_up, lock_key
from runstream.database.database import Database
from runstream.database.transaction import Transaction
from runstream.datamanager.agreement import require_agreement
from runstream.datamanager.archive import Archive
from runstream.datamanager.restore import forget_note, noted, restore
from runstream.datamanager.startup_state import (
    Archived,
    Begin,
    Knowledge,
    Nats,
    Restore,
    Situation,
    decide,
    epoch_of,
    lost_commits,
)
from runstream.datamanager.status import DataStatus
from runstream.errors import InternalError
from runstream.ids import new_id
from runstream.log import streams
from runstream.log.jetstream import LogReader
from runstream.log.streams import LogDescription, read_key, write_key
from runstream.objects.port import ObjectStorage
from runstream.subjects import Subjects

_DEPLOYMENT = "deployment"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a lost log."""

    commits: int
    """How many were restored."""
    until: datetime | None
    """When the newest of them was stored; what came later is lost."""
    lost: dict[int, tuple[int, int]]
    """Of what is lost the sequences that the database has seen, first and last by partition."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A log that can be opened."""

    deployment: str
    """The id of the deployment, the same in NATS, database and archive."""
    restored: Restored | None
    """None when the log was there, or is new."""


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where the log of a service is, and what a new one is made with."""

    nats: Client
    database: Database
    objects: ObjectStorage
    namespace: str
    service: str
    partitions: int
    replicas: int


async def prepare_log(place: LogPlace) -> Prepared:
    """Make sure that the log is there, whole, and the one that database and archive know.

    Raises ContradictionError or NoDataStatusError, with the ways out, when it cannot be had without losing something;
    InternalError when NATS, database or storage fail. Nothing is changed then.
    """
    async with one_at_a_time(place.database, place.namespace, place.service):
        description = await streams.described(place.nats, place.namespace, place.service)
        found = await _situation(place, description)
        plan = decide(found)
        restored: Restored | None = None
        deployment = _deployment(found)
        if isinstance(plan, Restore):
            restored = await _restored(place, found, plan)
        elif isinstance(plan, Begin):
            await streams.create_streams(place.nats, found.subjects, place.partitions, place.replicas)
        elif found.archived.status is not None:
            await _require_agreement(place, found, found.archived.status, ())
        deployment = await claim(place.database, deployment)
        await _describe(place, found, deployment, description)
        await note_epoch(place.database, place.service, found.subjects.epoch, len(found.nats.ends))
    return Prepared(deployment, restored)


async def _situation(place: LogPlace, description: LogDescription | None) -> Situation:
    database = await known(place.database, place.service)
    # The archives of a service have one object in common; whichever epoch it is asked by.
    current = await Archive(place.objects, Subjects(place.namespace, place.service, 1)).current()
    subjects = Subjects(place.namespace, place.service, epoch_of(description, database, current))
    archive = Archive(place.objects, subjects)
    status = await archive.find_status()
    archived = Archived(status, status is not None or await archive.anything() is not None, current)
    partitions = _partitions(place, subjects, description, status, database)
    nats = Nats(
        description,
        await deployment_in_nats(place.nats, place.namespace),
        await noted(place.nats, place.namespace, place.service, subjects.epoch),
        await streams.ends(place.nats, subjects, partitions),
    )
    return Situation(subjects, nats, database, archived, place.database.schema)


def _partitions(
    place: LogPlace,
    subjects: Subjects,
    description: LogDescription | None,
    status: DataStatus | None,
    database: Knowledge,
) -> int:
    """How many the log has: as NATS says, else as the archive, the database or, for a new one, the settings say."""
    if description is not None and description.epoch == subjects.epoch:
        return description.partitions
    if status is not None:
        return len(status.partitions)
    return database.partitions or place.partitions


def _deployment(found: Situation) -> str:
    """The id that all who have one agree on; a new one when nobody has."""
    status = found.archived.status
    archived = status.deployment if status is not None else None
    return found.database.deployment or found.nats.deployment or archived or new_id()


async def deployment_in_nats(nc: Client, namespace: str) -> str | None:
    """The id of the deployment as NATS has it; None when it has none. Raises InternalError."""
    data = (await read_key(nc, namespace, _DEPLOYMENT)).data
    try:
        return str(orjson.loads(data)["id"]) if data else None
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise InternalError(
            f"the key {_DEPLOYMENT!r} of bucket {namespace}_control is not ours: {data[:80]!r}",
            code="foreignLog",
            hint="choose another namespace, or give NATS its data back",
        ) from error


async def _require_agreement(place: LogPlace, found: Situation, status: DataStatus, without: tuple[int, ...]) -> None:
    """Compare the log with the archive, `without` partitions that are not there."""
    reader = LogReader(place.nats, found.subjects, len(found.nats.ends))
    where = Archive(place.objects, found.subjects).places.folder
    await require_agreement(reader, status, status.deployment, where, without)


async def _restored(place: LogPlace, found: Situation, plan: Restore) -> Restored:
    status = plan.status
    archive = Archive(place.objects, found.subjects)
    await _require_agreement(place, found, status, plan.partitions)
    commits = sum(status.partitions[partition].last for partition in plan.partitions)
    log.warning(
        f"the log is missing in NATS: restoring {counted(commits, 'commit')} from the archive",
        action="log_restore_begins",
        archive=archive.places.folder,
        commits=commits,
        partitions=plan.partitions,
        until=status.until,
    )
    await restore(place.nats, archive, status, plan.partitions, place.replicas)
    ends = [
        status.partitions[partition].last if partition in plan.partitions else end or 0
        for partition, end in enumerate(found.nats.ends)
    ]
    restored = Restored(commits, status.until, lost_commits(ends, found.database))
    await _tell(place, restored)
    return restored


async def _tell(place: LogPlace, restored: Restored) -> None:
    """Say what was restored and what is lost; a projection that has seen what is lost is emptied."""
    for partition, (first, last) in restored.lost.items():
        log.warning(
            f"commits {first} to {last} of partition {partition} ({last - first + 1}) are lost: they were in the "
            "database, but not in the archive yet",
            action="commits_lost",
            partition=partition,
            first=first,
            last=last,
        )
    if restored.lost:
        await forget_projection(place.database, place.service)
        log.warning("the projection is made anew from the restored log", action="projection_reset")
    until = f"{restored.until:%Y-%m-%d %H:%M:%S.%f} UTC" if restored.until is not None else "its beginning"
    log.warning(
        f"the log is restored: {counted(restored.commits, 'commit')}, up to {until}; later commits are lost",
        action="log_restored",
        commits=restored.commits,
        until=restored.until,
    )


async def _describe(place: LogPlace, found: Situation, deployment: str, description: LogDescription | None) -> None:
    """Say whose log it is, and then, as the last thing, that it is whole."""
    await streams.create_control_bucket(place.nats, place.namespace, place.replicas)
    if found.nats.deployment is None:
        data = orjson.dumps({"id": deployment})
        await write_key(place.nats, place.namespace, _DEPLOYMENT, data)
    epoch = found.subjects.epoch
    if description is not None and description.epoch != epoch:
        log.warning(
            f"NATS named epoch {description.epoch}; the database says that it is {epoch}",
            action="epoch_repaired",
            epoch=epoch,
        )
    await streams.describe(place.nats, found.subjects, len(found.nats.ends), instead=description)
    await forget_note(place.nats, place.namespace, place.service)


RESET_SECONDS = 60.0
LOCK_SECONDS = 3600
"""How long another process may take to restore the log."""
_PROJECTED = (
    tables.runs,
    tables.run_tasks,
    tables.executor_tasks,
    tables.executors,
    tables.counters,
    tables.run_configs,
    tables.parked,
)
log = structlog.get_logger()


async def known(database: Database, service: str) -> Knowledge:
    """What the database knows of a service's log."""
    epochs, checkpoints = tables.epochs.c, tables.checkpoints.c
    current = select(epochs.epoch, epochs.partitions).where(epochs.service == service, epochs.current)
    reached = select(checkpoints.partition, checkpoints.epoch, checkpoints.sequence).where(
        checkpoints.projection == service, checkpoints.sequence > 0
    )
    async with database.snapshot() as transaction:
        deployment = await transaction.first(select(tables.deployment.c.id))
        epoch = await transaction.first(current)
        rows = await transaction.rows(reached)
    # A database that is older than the table of epochs has only checkpoints.
    number = epoch["epoch"] if epoch is not None else max((row["epoch"] for row in rows), default=None)
    return Knowledge(
        deployment["id"] if deployment is not None else None,
        number,
        epoch["partitions"] if epoch is not None else None,
        {row["partition"]: row["sequence"] for row in rows if row["epoch"] == number},
    )


async def claim(database: Database, deployment: str) -> str:
    """Write down whose database this is, if it is nobody's; gives what is written there."""
    row = insert(tables.deployment).values(id=deployment).on_conflict_do_nothing()

    async def work(transaction: Transaction) -> str:
        await transaction.execute(row)
        found = await transaction.first(select(tables.deployment.c.id))
        return str(found["id"]) if found is not None else deployment

    return await database.transaction(work)


async def note_epoch(database: Database, service: str, epoch: int, partitions: int) -> None:
    """Write down that the log is made, in this epoch; what is known of a current epoch stays."""
    epochs = tables.epochs
    current = select(epochs.c.epoch).where(epochs.c.service == service, epochs.c.current)
    row = insert(epochs).values(service=service, epoch=epoch, current=True, partitions=partitions)
    noted = row.on_conflict_do_update(
        index_elements=[epochs.c.service, epochs.c.epoch], set_={"current": True, "partitions": partitions}
    )

    async def work(transaction: Transaction) -> None:
        if await transaction.first(current) is None:
            await transaction.execute(noted)

    await database.transaction(work)


async def forget_projection(database: Database, service: str) -> None:
    """Empty the projection and set it to its beginning, at once: it is made anew from the log."""
    checkpoints = tables.checkpoints
    names = ", ".join(table.name for table in _PROJECTED)

    async def work(transaction: Transaction) -> None:
        await transaction.execute(text(f"TRUNCATE {names}"))
        await transaction.execute(delete(checkpoints).where(checkpoints.c.projection == service))

    await database.transaction(work, timeout=RESET_SECONDS)


@asynccontextmanager
async def one_at_a_time(database: Database, namespace: str, service: str) -> AsyncIterator[None]:
    """For as long as the block lasts no other process looks after this log. Raises InternalError."""
    connection = await database.connect(watchful=True)
    try:
        await _lock(connection, lock_key(f"{database.schema}/{namespace}/{service}/start"))
        yield
    finally:
        await hang_up(connection)


async def _lock(connection: asyncpg.Connection[asyncpg.Record], key: int) -> None:
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
            log.info("another process looks after the log; waiting for it", action="log_waits")
            await connection.execute("SELECT pg_advisory_lock($1)", key, timeout=LOCK_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise InternalError(
            f"the lock under which the log is looked after was not had: {str(error) or type(error).__name__}",
            code="startLockFailed",
            hint="another process may still restore the log: its log records say how far it is",
        ) from error
