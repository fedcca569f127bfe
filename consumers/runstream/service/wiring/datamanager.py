"""The datamanager of a process."""

from __future__ import annotations

from runstream.datamanager.datamanager import DataManager
from runstream.jetstream.messaging import Questions
from runstream.log.jetstream import JetStreamLog, LogReader
from runstream.maintenance.mode import Mode
from runstream.service.platform import Platform


def make_datamanager(platform: Platform, log: JetStreamLog, mode: Mode) -> DataManager:
    """Make the datamanager of a log. It works on in maintenance, to archive commits of components that drain."""

    async def moved(epoch: int) -> None:
        await mode.until(lambda: log.epoch != epoch)

    return DataManager(
        lambda: LogReader(platform.nats, log.subjects, log.partitions),
        platform.objects,
        platform.pool(),
        platform.deployment,
        moved=moved,
        questions=Questions(platform.nats),
    )
