"""What an import or an epoch leaves behind: taken away in an order that bears a kill.

An epoch is marked as deleted before its streams are: a half deleted one is nothing that could be gone back to. What a
killed one has left is there until the next one, or until a process of the service starts.
"""

from __future__ import annotations

import asyncio

import structlog

from runstream.database.epochs import Epoch, list_epochs, mark_deleted
from runstream.errors import ConflictError, RunstreamError
from runstream.importing.switching import ServicePlace
from runstream.jetstream.api import request
from runstream.log.streams import delete_stream
from runstream.projections.rebuild_alone import alone
from runstream.projections.rebuild_schema import drop, schema_beside

log = structlog.get_logger()


async def remove_killed(place: ServicePlace) -> None:
    """When a process starts: remove what rebuilds, imports and deletions have left that were killed.

    One that is under way is left alone, and what fails is left to the next one who tries.
    """
    try:
        async with alone(place.database, seconds=0):
            await remove_leftovers(place)
    except ConflictError as error:
        log.info(error.message, action="leftovers_stay")
    except RunstreamError as error:
        log.warning(f"What was left behind is not removed yet: {error.message}", action="leftovers_stay")


async def remove_leftovers(place: ServicePlace) -> None:
    """Delete what imports and deletions that were killed have left. Only while none of them can be under way."""
    there = await epochs_in_nats(place)
    for epoch in await list_epochs(place.database, place.service):
        if epoch.state == "loading" or (epoch.state == "deleted" and epoch.number in there):
            await remove_epoch(place, epoch)
            log.warning("What was left of an epoch is deleted", action="leftover_epoch_deleted", epoch=epoch.number)
    await drop(place.database.url, schema_beside(place.database.schema))


async def remove_epoch(place: ServicePlace, epoch: Epoch) -> None:
    """Delete an epoch's streams with all that is in them. Raises ConflictError for the current one."""
    await mark_deleted(place.database, place.service, epoch.number)
    subjects = place.subjects(epoch.number)
    await asyncio.gather(*(delete_stream(place.nats, subjects, partition) for partition in range(epoch.partitions)))


async def epochs_in_nats(place: ServicePlace) -> set[int]:
    """The epochs of which there are streams, whoever made them."""
    prefix = f"{place.namespace}_{place.service}_"
    found: set[int] = set()
    offset = 0
    while True:
        asked = {"subject": f"{place.namespace}.{place.service}.>", "offset": offset}
        answer = await request(place.nats, "STREAM.NAMES", asked)
        names: list[str] = answer.get("streams") or []
        for name in names:
            epoch, _, _ = name.removeprefix(prefix).partition("_")
            if name.startswith(prefix) and epoch.isdigit():
                found.add(int(epoch))
        offset += len(names)
        if not names or offset >= answer["total"]:
            return found
