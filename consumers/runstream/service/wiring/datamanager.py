"""The datamanager of a process."""

from __future__ import annotations

from runstream.datamanager.datamanager import DataManager
from runstream.jetstream.messaging import Questions
from runstream.maintenance.mode import Mode
from runstream.service.platform import Platform


def make_datamanager(platform: Platform, mode: Mode) -> DataManager:
    """Make the datamanager. It works on in maintenance, to archive commits of components that drain."""

    async def moved(epoch: int) -> None:
        await mode.until(lambda: platform.log.epoch != epoch)

    return DataManager(
        platform.reading_log,
        platform.objects,
        platform.pool(),
        platform.deployment,
        moved=moved,
        questions=Questions(platform.nats),
    )
