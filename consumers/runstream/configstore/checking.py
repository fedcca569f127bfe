"""fsck of the config service: fold its log up to the checkpoint, and compare every row with the fold."""

from __future__ import annotations

from sqlalchemy import select

from runstream import tables
from runstream.config_folding import PARTITION
from runstream.configstore.reading import fold_up_to
from runstream.configstore.rows import PROJECTION, Key, config_rows, parked_rows
from runstream.database.database import Database
from runstream.log.port import ReadableLog
from runstream.projections.fsck import FSCK_SECONDS, FsckFindings, RowDifference, compare
from runstream.tables import ConfigRow, ParkedRow, Row


async def fsck_config(database: Database, log: ReadableLog, report: FsckFindings) -> None:
    """Add the differences between the rows of the config service and its log to a report.

    Raises InternalError when log or database fail.
    """
    columns, parked = tables.checkpoints.c, tables.parked.c
    async with database.snapshot(timeout=FSCK_SECONDS) as transaction:
        checkpoint = await transaction.first(
            select(columns.epoch, columns.sequence).where(columns.projection == PROJECTION)
        )
        found: dict[Key, Row] = {
            (row["kind"], row["id"]): ConfigRow(**row) for row in await transaction.rows(select(tables.config))
        }
        listed = [parked[name] for name in ParkedRow._fields]
        aside = await transaction.rows(select(*listed).where(parked.projection == PROJECTION))
    if checkpoint is not None and checkpoint["epoch"] != log.epoch:
        report.add([RowDifference("checkpoints", (PROJECTION,), "epoch", log.epoch, checkpoint["epoch"])])
        return
    sequence = 0 if checkpoint is None else checkpoint["sequence"]
    end = await log.end(PARTITION, at_least=sequence)
    if sequence > end:
        report.add([RowDifference("checkpoints", (PROJECTION,), "sequence", end, sequence)])
        return
    fold = await fold_up_to(log, sequence)
    rows: dict[Key, Row] = {**config_rows(fold)}
    report.commits += fold.after
    report.rows += len(rows)
    report.add(compare("config", rows, found))
    expected: dict[Key, Row] = {(row.sequence,): row for row in parked_rows(fold.all_parked.values())}
    report.add(compare("parked", expected, {(row["sequence"],): ParkedRow(**row) for row in aside}))
