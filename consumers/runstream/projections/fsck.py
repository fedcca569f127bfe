"""Is the projection exactly the fold of the log? Everything is folded again, and every row of every table compared.

Each partition is folded up to its checkpoint and compared with one snapshot of the database, while the service runs.
A run that is archived and whose rows have the versions that the fold has come to is compared at once and forgotten,
so that memory holds what was active at one time, and one id for each run, executor task and run config of the
partition (some 100 bytes each).
"""

from __future__ import annotations

from collections.abc import Sequence

from runstream.database.database import Database
from runstream.log.port import Log
from runstream.projections.checking import PartitionCheck
from runstream.projections.comparing import Report
from runstream.projections.snapshot import PartitionRows

FSCK_SECONDS = 4 * 3600.0


async def fsck(database: Database, log: Log, partitions: Sequence[int] | None = None) -> Report:
    """Compare the projection with the log, in all partitions or in these.

    What is behind a partition's checkpoint is not looked at. Raises InternalError when log or database fail.
    """
    report = Report()
    for partition in range(log.partitions) if partitions is None else partitions:
        async with database.snapshot(timeout=FSCK_SECONDS) as transaction:
            rows = PartitionRows(transaction, partition)
            await PartitionCheck(rows, log, report).run()
    return report
