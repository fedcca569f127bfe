"""Parked commits: which they are, and how one is asked to be tried again.

A commit is parked by its position and the reason, never as a copy: after a fix it is read again from the log with
today's code. Trying again is a request on the schema's channel of retries: the scheduler that owns the partition
reads the parked commits from the log in their order, and what fits now is no longer parked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg
from sqlalchemy import select, text

from runstream.commits import Position
from runstream.database.channel import retry_channel_of
from runstream.database.connection import hang_up
from runstream.database.database import Database
from runstream.database.locks import lock_key
from runstream.database.transaction import Transaction
from runstream.errors import InternalError
from runstream.tables import PROJECTION, parked

LOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ParkedCommit:
    """A commit that could not be read or applied."""

    position: Position
    subject: str
    aggregate: str
    reason: str
    at: datetime
    """When it was parked, in UTC."""


async def list_parked(
    transaction: Transaction, partition: int | None = None, epoch: int | None = None
) -> tuple[ParkedCommit, ...]:
    """What is parked (in one partition, in one epoch, or in all), in the order of the log."""
    listed = select(parked).where(parked.c.projection == PROJECTION)
    if partition is not None:
        listed = listed.where(parked.c.partition == partition)
    if epoch is not None:
        listed = listed.where(parked.c.epoch == epoch)
    rows = await transaction.rows(listed.order_by(parked.c.epoch, parked.c.partition, parked.c.sequence))
    return tuple(
        ParkedCommit(
            Position(row["epoch"], row["partition"], row["sequence"]),
            row["subject"],
            row["aggregate"],
            row["reason"],
            row["at"],
        )
        for row in rows
    )


async def first_parked(transaction: Transaction, epoch: int) -> list[tuple[ParkedCommit, int]]:
    """Return of each partition with parked commits the first of them, and their number."""
    rows = await transaction.rows(
        text(
            "SELECT DISTINCT ON (partition) partition, sequence, subject, aggregate, reason, at,"
            " count(*) OVER (PARTITION BY partition) AS count"
            " FROM parked WHERE projection = :projection AND epoch = :epoch ORDER BY partition, sequence"
        ),
        {"projection": PROJECTION, "epoch": epoch},
    )
    return [
        (
            ParkedCommit(
                Position(epoch, row["partition"], row["sequence"]),
                row["subject"],
                row["aggregate"],
                row["reason"],
                row["at"],
            ),
            row["count"],
        )
        for row in rows
    ]


@asynccontextmanager
async def deciding(database: Database, partition: int) -> AsyncIterator[None]:
    """For as long as the block lasts nobody else skips parked commits of the partition, or tries them again.

    So nobody decides that a commit is skipped that another one is just about to apply. Raises InternalError.
    """
    connection = await database.connect(watchful=True)
    try:
        key = lock_key(f"{database.schema}/{PROJECTION}/{partition}/parked")
        await connection.execute("SELECT pg_advisory_lock($1)", key, timeout=LOCK_SECONDS)
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise InternalError(
            f"the lock on the parked commits of partition {partition} was not had: {str(error) or 'in time'}",
            code="parkedBusy",
            hint="somebody else decides about them; try again in a moment",
        ) from error
    finally:
        await hang_up(connection)


async def request_retry(database: Database, positions: Sequence[Position] = ()) -> int:
    """Ask the owners of the partitions to try parked commits again (all, or these); how many are asked for."""

    async def work(transaction: Transaction) -> int:
        asked = [one.position for one in await list_parked(transaction) if not positions or one.position in positions]
        for partition in sorted({position.partition for position in asked}):
            await transaction.rows(
                text("SELECT pg_notify(:channel, :partition)"),
                {"channel": retry_channel_of(database.schema), "partition": str(partition)},
            )
        return len(asked)

    return await database.transaction(work)
