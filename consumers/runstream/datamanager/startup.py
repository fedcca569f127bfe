"""Prepares the log before a process uses it: finds, creates or restores it, or refuses the start.

Each process with a database does this first, one at a time. Executors, which have none, wait until the log is
described.
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
from runstream.database.connection import hung_up, lock_key
from runstream.database.database import Database
from runstream.database.transaction import Transaction
from runstream.datamanager.agreement import require_agreement
from runstream.datamanager.archive import Archive
from runstream.datamanager.restore import clear_note, read_note, restore
from runstream.datamanager.startup_state import (
    ArchiveState,
    CreateLog,
    DatabaseState,
    NatsState,
    RestoreLog,
    StartupState,
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
"""Key of the control bucket with the deployment's id."""
_RESET_SECONDS = 60.0
_LOCK_SECONDS = 3600
"""Time that another process may take to restore the log, in seconds."""
_PROJECTED = {
    "runs": (
        tables.runs,
        tables.run_tasks,
        tables.task_failures,
        tables.deleted_runs,
        tables.executor_tasks,
        tables.executors,
        tables.counters,
        tables.run_configs,
    ),
    "config": (tables.config,),
}
"""The tables with the rows of each service."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore."""

    commits: int
    """Number of restored commits."""
    until: datetime | None
    """Time at which the newest restored commit was first stored; later commits are lost."""
    lost: dict[int, tuple[int, int]]
    """Lost commits that the database has seen: first and last sequence, by partition."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A log that is ready to be opened."""

    deployment: str
    """Id of the deployment, the same in NATS, database and archive."""
    restored: Restored | None
    """None for an existing or new log."""


@dataclass(frozen=True, slots=True)
class LogPlace:
    """The place of a service's log, and the parameters of a new one."""

    nats: Client
    database: Database
    objects: ObjectStorage
    namespace: str
    service: str
    partitions: int
    replicas: int


async def prepare_log(place: LogPlace) -> Prepared:
    """Make sure that the log exists, is complete, and is the one that database and archive know.

    Raises ContradictionError or NoDataStatusError, with the ways out, when every choice would lose data; InternalError
    when NATS, database or storage fail. A refused start changes nothing.
    """
    async with startup_lock(place.database, place.namespace, place.service):
        description = await streams.described(place.nats, place.namespace, place.service)
        found = await _read_state(place, description)
        plan = decide(found)
        restored: Restored | None = None
        status = found.archive.status
        archived = status.deployment if status is not None else None
        deployment = found.database.deployment or found.nats.deployment or archived or new_id()
        if isinstance(plan, RestoreLog):
            restored = await _restored(place, found, plan)
        elif isinstance(plan, CreateLog):
            await streams.create_streams(place.nats, found.subjects, place.partitions, place.replicas)
        elif status is not None:
            await _require_agreement(place, found, status, ())
        # The description comes last: it makes a log usable, and an interrupted start must begin again from above.
        deployment = await claim_deployment(place.database, deployment)
        await _describe(place, found, deployment, description)
        await record_epoch(place.database, place.service, found.subjects.epoch, len(found.nats.ends))
    return Prepared(deployment, restored)


async def _read_state(place: LogPlace, description: LogDescription | None) -> StartupState:
    database = await read_database_state(place.database, place.service)
    # `current.json` is of the service: the epoch in these subjects does not matter.
    current = await Archive(place.objects, Subjects(place.namespace, place.service, 1)).current()
    subjects = Subjects(place.namespace, place.service, epoch_of(description, database, current))
    archive = Archive(place.objects, subjects)
    status = await archive.find_status()
    archived = ArchiveState(status, status is not None or await archive.anything() is not None, current)
    partitions = _partitions(place, subjects, description, status, database)
    nats = NatsState(
        description,
        await deployment_in_nats(place.nats, place.namespace),
        await read_note(place.nats, place.namespace, place.service, subjects.epoch),
        await streams.ends(place.nats, subjects, partitions),
    )
    return StartupState(subjects, nats, database, archived, place.database.schema)


def _partitions(
    place: LogPlace,
    subjects: Subjects,
    description: LogDescription | None,
    status: DataStatus | None,
    database: DatabaseState,
) -> int:
    """Return the number of partitions: that of NATS, else of the archive, the database, or the settings."""
    if description is not None and description.epoch == subjects.epoch:
        return description.partitions
    if status is not None:
        return len(status.partitions)
    return database.partitions or place.partitions


async def deployment_in_nats(nc: Client, namespace: str) -> str | None:
    """Return the deployment's id in NATS; None without one. Raises InternalError."""
    data = (await read_key(nc, namespace, _DEPLOYMENT)).data
    try:
        return str(orjson.loads(data)["id"]) if data else None
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise InternalError(
            f"the key {_DEPLOYMENT!r} of bucket {namespace}_control is not ours: {data[:80]!r}",
            code="foreignLog",
            hint="choose another namespace, or restore NATS's data",
        ) from error


async def _require_agreement(
    place: LogPlace, found: StartupState, status: DataStatus, without: tuple[int, ...]
) -> None:
    """Compare the log with the archive, `without` its missing partitions."""
    reader = LogReader(place.nats, found.subjects, len(found.nats.ends))
    where = Archive(place.objects, found.subjects).paths.folder
    await require_agreement(reader, status, status.deployment, where, without)


async def _restored(place: LogPlace, found: StartupState, plan: RestoreLog) -> Restored:
    status = plan.status
    archive = Archive(place.objects, found.subjects)
    await _require_agreement(place, found, status, plan.partitions)
    commits = sum(status.partitions[partition].last for partition in plan.partitions)
    log.warning(
        f"the log is missing in NATS: restoring {counted(commits, 'commit')} from the archive",
        action="log_restore_begins",
        archive=archive.paths.folder,
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
    await _report(place, restored)
    return restored


async def _report(place: LogPlace, restored: Restored) -> None:
    """Log what is restored and what is lost; reset a projection that has seen lost commits."""
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
        await reset_projection(place.database, place.service)
        log.warning("reset the projection: it is built again from the restored log", action="projection_reset")
    until = f"{restored.until:%Y-%m-%d %H:%M:%S.%f} UTC" if restored.until is not None else "its beginning"
    log.warning(
        f"the log is restored: {counted(restored.commits, 'commit')}, up to {until}; later commits are lost",
        action="log_restored",
        commits=restored.commits,
        until=restored.until,
    )


async def _describe(place: LogPlace, found: StartupState, deployment: str, description: LogDescription | None) -> None:
    """Write the deployment's id, and then the description, which declares the log complete."""
    await streams.create_control_bucket(place.nats, place.namespace, place.replicas)
    if found.nats.deployment is None:
        data = orjson.dumps({"id": deployment})
        await write_key(place.nats, place.namespace, _DEPLOYMENT, data)
    epoch = found.subjects.epoch
    if description is not None and description.epoch != epoch:
        log.warning(
            f"corrected the epoch in NATS from {description.epoch} to {epoch}, as in the database",
            action="epoch_repaired",
            epoch=epoch,
        )
    await streams.describe(place.nats, found.subjects, len(found.nats.ends), instead=description)
    await clear_note(place.nats, place.namespace, place.service)


async def read_database_state(database: Database, service: str) -> DatabaseState:
    """Read the state of a service's log from the database."""
    epochs, checkpoints = tables.epochs.c, tables.checkpoints.c
    current = select(epochs.epoch, epochs.partitions).where(epochs.service == service, epochs.current)
    positions = select(checkpoints.partition, checkpoints.epoch, checkpoints.sequence).where(
        checkpoints.projection == service, checkpoints.sequence > 0
    )
    async with database.snapshot() as transaction:
        deployment = await transaction.first(select(tables.deployment.c.id))
        epoch = await transaction.first(current)
        rows = await transaction.rows(positions)
    # A database older than the table of epochs has only checkpoints.
    number = epoch["epoch"] if epoch is not None else max((row["epoch"] for row in rows), default=None)
    return DatabaseState(
        deployment["id"] if deployment is not None else None,
        number,
        epoch["partitions"] if epoch is not None else None,
        {row["partition"]: row["sequence"] for row in rows if row["epoch"] == number},
    )


async def claim_deployment(database: Database, deployment: str) -> str:
    """Write the deployment's id into a database that has none; return the id that it has."""
    row = insert(tables.deployment).values(id=deployment).on_conflict_do_nothing()

    async def work(transaction: Transaction) -> str:
        await transaction.execute(row)
        found = await transaction.first(select(tables.deployment.c.id))
        return str(found["id"]) if found is not None else deployment

    return await database.transaction(work)


async def record_epoch(database: Database, service: str, epoch: int, partitions: int) -> None:
    """Record the epoch of a new log, unless the database has a current epoch."""
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


async def reset_projection(database: Database, service: str) -> None:
    """Empty the projection and its checkpoints in one transaction: it is built again from the log."""
    checkpoints, parked = tables.checkpoints, tables.parked
    names = ", ".join(table.name for table in _PROJECTED[service])

    async def work(transaction: Transaction) -> None:
        await transaction.execute(text(f"TRUNCATE {names}"))
        await transaction.execute(delete(parked).where(parked.c.projection == service))
        await transaction.execute(delete(checkpoints).where(checkpoints.c.projection == service))

    await database.transaction(work, timeout=_RESET_SECONDS)


@asynccontextmanager
async def startup_lock(database: Database, namespace: str, service: str) -> AsyncIterator[None]:
    """Hold the lock under which one process at a time prepares the log. Raises InternalError."""
    key = lock_key(f"{database.schema}/{namespace}/{service}/start")
    async with hung_up(await database.connect(watchful=True)) as connection:
        try:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
                log.info("another process is preparing the log; waiting for it", action="log_waits")
                await connection.execute("SELECT pg_advisory_lock($1)", key, timeout=_LOCK_SECONDS)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            raise InternalError(
                f"cannot acquire the lock for preparing the log: {str(error) or type(error).__name__}",
                code="startLockFailed",
                hint="another process may still be restoring the log: see its log records",
            ) from error
        yield
