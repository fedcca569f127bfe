"""The switch from one epoch to another: a single transaction of Postgres, which alone decides.

    everybody parked, all partitions owned -> rows exchanged and epoch made current, at once -> NATS told

Processes learn of it from NATS when maintenance ends. Whatever kills us in between is repaired before they do: at the
next start of any process that has the database, and before maintenance is disabled (`tell_nats`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from nats.aio.client import Client

from runstream.database.database import Database
from runstream.database.epochs import Epoch, current_epoch, list_epochs, make_current
from runstream.errors import InternalError, NotExistError, RunstreamError
from runstream.jetstream.api import STREAM_NOT_FOUND, ApiError, request
from runstream.log import streams
from runstream.projections.rebuild_ownership import all_owned
from runstream.projections.rebuild_schema import exchange
from runstream.subjects import Subjects

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ServicePlace:
    """Where a service's log and its projection are."""

    nats: Client
    nats_url: str
    database: Database
    namespace: str
    service: str
    replicas: int
    """How many servers of a NATS cluster keep each new stream."""

    def subjects(self, epoch: int) -> Subjects:
        """The names in one epoch."""
        return Subjects(self.namespace, self.service, epoch)


async def switch(
    place: ServicePlace, old: Epoch, new: Epoch, beside: str, require: Callable[[], Awaitable[None]]
) -> None:
    """Serve another epoch with the rows of the schema `beside`. All or nothing, and on disk when this returns.

    `require` is called last before it, and raises when it must not be done any more. Raises ConflictError when the old
    epoch is not current any more, InternalError when the database fails.
    """
    database = place.database
    partitions = max(old.partitions, new.partitions)
    async with all_owned(database, place.namespace, place.service, partitions):
        await require()
        try:
            await exchange(
                database, beside, lambda connection: make_current(connection, place.service, new.number, old.number)
            )
        except InternalError:
            # The answer of the commit may be all that was lost.
            if (await current_epoch(database, place.service)).number != new.number:
                raise
    log.info("another epoch is served", action="epoch_switched", epoch=new.number, before=old.number)
    try:
        await tell_nats(place.nats, database, place.namespace, place.service)
    except RunstreamError as error:
        log.warning("NATS is told of the epoch before maintenance ends", action="epoch_untold", error=str(error))


async def tell_nats(nc: Client, database: Database, namespace: str, service: str) -> None:
    """Have NATS name the epoch that the database names as current, if it names another one.

    What comes due of the epoch before is forgotten: workers set the time-outs of their running tasks anew. Raises
    NotExistError when the streams of the current epoch are missing, InternalError when NATS or the database fails.
    """
    current = next((epoch for epoch in await list_epochs(database, service) if epoch.current), None)
    said = await streams.described(nc, namespace, service)
    if current is None or said is None or said.epoch == current.number:
        return
    subjects = Subjects(namespace, service, current.number)
    if None in await streams.ends(nc, subjects, current.partitions):
        raise NotExistError(
            f"the database says that epoch {current.number} is current, and NATS has not all of its streams",
            code="logIncomplete",
            hint="start a process that has the database: it restores the log from its archive, or says what to do",
        )
    await _forget_timers(nc, namespace)
    await streams.describe(nc, subjects, current.partitions, instead=said)
    log.info("NATS names another epoch", action="epoch_told", epoch=current.number, before=said.epoch)


async def _forget_timers(nc: Client, namespace: str) -> None:
    try:
        await request(nc, f"STREAM.PURGE.{namespace}_TIMERS")
    except ApiError as error:
        if error.number != STREAM_NOT_FOUND:
            raise
