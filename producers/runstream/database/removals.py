"""The cleaner's mark in each partition: the objects that commits up to it release are removed."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from runstream.database.database import Database
from runstream.subjects import Subjects
from runstream.tables import removals


async def load_mark(database: Database, subjects: Subjects, partition: int) -> int:
    """Return the mark of a partition; 0 where nothing was removed yet."""
    columns = removals.c
    wanted = select(columns.sequence).where(
        columns.service == subjects.service, columns.epoch == subjects.epoch, columns.partition == partition
    )
    async with database.snapshot() as transaction:
        row = await transaction.first(wanted)
    return row["sequence"] if row is not None else 0


async def move_mark(database: Database, subjects: Subjects, partition: int, sequence: int) -> None:
    """Move the mark of a partition forward."""
    row = insert(removals).values(
        service=subjects.service, epoch=subjects.epoch, partition=partition, sequence=sequence
    )
    further = {"sequence": func.greatest(removals.c.sequence, row.excluded.sequence)}
    change = row.on_conflict_do_update(index_elements=[*removals.primary_key], set_=further)
    await database.transaction(lambda transaction: transaction.execute(change))
