"""What retention keeps beside the log: from when ages count, and the cleaner's mark in each partition.

An epoch that becomes current begins without marks (`runstream.database.epochs.make_current`).
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from runstream.database.database import Database
from runstream.errors import InternalError
from runstream.subjects import Subjects
from runstream.tables import epochs, removals, retention


async def ages_count_from(database: Database, service: str, epoch: int) -> datetime:
    """Return the time from which ages count at the earliest: the upgrade, or the import of this epoch's log."""
    known = epochs.c
    begun = select(known.created_at).where(known.service == service, known.epoch == epoch).scalar_subquery()
    async with database.snapshot() as transaction:
        row = await transaction.first(select(func.greatest(retention.c.since, begun).label("since")))
    if row is None:
        raise InternalError(
            "the table retention is empty",
            code="retentionUnknown",
            hint="restore its row: `INSERT INTO retention DEFAULT VALUES`",
        )
    since: datetime = row["since"]
    return since


async def load_marks(database: Database, subjects: Subjects) -> dict[int, int]:
    """Return the mark of each partition; empty where the cleaner has not begun in this epoch."""
    columns = removals.c
    wanted = select(columns.partition, columns.sequence).where(
        columns.service == subjects.service, columns.epoch == subjects.epoch
    )
    async with database.snapshot() as transaction:
        return {row["partition"]: row["sequence"] for row in await transaction.rows(wanted)}


async def begin_marks(database: Database, subjects: Subjects, partitions: int) -> None:
    """Begin the marks of an epoch that has none; idempotent."""
    rows = [
        {"service": subjects.service, "epoch": subjects.epoch, "partition": partition, "sequence": 0}
        for partition in range(partitions)
    ]
    begun = insert(removals).values(rows).on_conflict_do_nothing(index_elements=[*removals.primary_key])
    await database.transaction(lambda transaction: transaction.execute(begun))


async def move_mark(database: Database, subjects: Subjects, partition: int, sequence: int) -> None:
    """Move the mark of a partition forward."""
    row = insert(removals).values(
        service=subjects.service, epoch=subjects.epoch, partition=partition, sequence=sequence
    )
    further = {"sequence": func.greatest(removals.c.sequence, row.excluded.sequence)}
    change = row.on_conflict_do_update(index_elements=[*removals.primary_key], set_=further)
    await database.transaction(lambda transaction: transaction.execute(change))
