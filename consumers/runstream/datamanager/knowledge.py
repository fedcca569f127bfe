"""What the database knows of a deployment's log, and the little that the archive's side writes there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import structlog
from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert

from runstream import tables
from runstream.database.connection import hang_up
from runstream.database.database import Database
from runstream.database.locks import lock_key
from runstream.database.transaction import Transaction
from runstream.errors import InternalError

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


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the database knows."""

    deployment: str | None = None
    epoch: int | None = None
    """The current one; None when no log was ever made."""
    partitions: int | None = None
    checkpoints: Mapping[int, int] | None = None
    """How far each partition of that epoch is projected; empty or None for not at all."""

    def projected(self, partition: int) -> int:
        """The last sequence of the partition that is projected; 0 for none."""
        return (self.checkpoints or {}).get(partition, 0)


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


def lost_commits(ends: Sequence[int], knowledge: Knowledge) -> dict[int, tuple[int, int]]:
    """The first and last sequence of what the database has seen, and a log with these ends has not, by partition."""
    return {
        partition: (end + 1, knowledge.projected(partition))
        for partition, end in enumerate(ends)
        if knowledge.projected(partition) > end
    }
