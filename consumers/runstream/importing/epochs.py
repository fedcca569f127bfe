"""Epochs: switching to one, going back, deleting one (`runstream epochs`), and cleaning up after a kill.

One Postgres transaction switches, and alone decides which epoch is current:

    all instances parked, all partitions owned -> tables exchanged and epoch made current, at once -> NATS told

Processes learn the new epoch from NATS when maintenance ends. A kill in between is repaired before that: at the next
start of any process with the database, and before maintenance ends (`publish_epoch`). Going back to an epoch is the
same switch, with rows built from its streams.

An epoch is marked deleted before its streams go: a half-deleted epoch must not be activated. The next import, or the
next start of a process, removes what a killed one left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog
from nats.aio.client import Client

from runstream import config_folding
from runstream.config_folding import ConfigFold
from runstream.configstore.projection import replace_rows
from runstream.configstore.reading import fold_up_to
from runstream.database.connection import Connection
from runstream.database.database import Database
from runstream.database.epochs import Epoch, EpochState, current_epoch, list_epochs, make_current, mark_deleted
from runstream.errors import BadRequestError, ConflictError, InternalError, NotExistError, RunstreamError
from runstream.jetstream.api import STREAM_NOT_FOUND, ApiError, request
from runstream.log import streams
from runstream.log.jetstream import LogReader
from runstream.log.streams import FORMAT, LogDescription, delete_stream
from runstream.maintenance.request import SERVICE
from runstream.projections.ownership import own_all_partitions
from runstream.projections.rebuild import OnStage, RebuildPlace, fill, rebuild_lock
from runstream.projections.rebuild_filling import Filled
from runstream.projections.rebuild_schema import (
    Change,
    apply_at_once,
    drop,
    exchange,
    make_empty,
    make_indexes,
    schema_beside,
)
from runstream.projections.store import storable
from runstream.subjects import Subjects


@dataclass(frozen=True, slots=True)
class ListedEpoch:
    """One epoch."""

    epoch: int
    current: bool
    state: EpochState
    partitions: int
    commits: int
    created: datetime
    origin: str
    """The source of its commits, as text; empty for those appended here."""


async def listed_epochs(place: ServicePlace) -> list[ListedEpoch]:
    """List all epochs that are not deleted, in order."""
    found = []
    for epoch in await list_epochs(place.database, place.service):
        if epoch.state != "deleted":
            commits = await place.commits(epoch)
            listed = (epoch.number, epoch.current, epoch.state, epoch.partitions, commits, epoch.created, epoch.origin)
            found.append(ListedEpoch(*listed))
    return found


log = structlog.get_logger()


class HeldMaintenance(Protocol):
    """The right to work while all instances are parked (`runstream.maintenance.lock.MaintenanceLock`)."""

    async def require(self) -> None:
        """Raise ConflictError when it has ended."""


HoldMaintenance = Callable[[str], AbstractAsyncContextManager[HeldMaintenance]]
"""Keeps all instances parked during the named operation. Raises ConflictError with those that are not."""


@dataclass(frozen=True, slots=True)
class ServicePlace:
    """The place of a service: its log and its projection."""

    nats: Client
    nats_url: str
    database: Database
    namespace: str
    service: str
    replicas: int
    """Replicas of each new stream in a NATS cluster."""

    def subjects(self, epoch: int) -> Subjects:
        """Return the subjects of an epoch."""
        return Subjects(self.namespace, self.service, epoch)

    @property
    def beside(self) -> str:
        """The schema in which the rows of another epoch are built."""
        return schema_beside(self.database.schema)

    def rows_beside(self, epoch: Epoch) -> RebuildPlace:
        """Return the log of an epoch, with the schema `beside` for its rows."""
        subjects = self.subjects(epoch.number)
        return RebuildPlace(self.nats_url, self.database.url, self.beside, subjects, epoch.partitions)

    async def ends(self, epoch: Epoch) -> tuple[int | None, ...]:
        """Return the last sequence of each stream of an epoch; None for a missing stream."""
        return await streams.ends(self.nats, self.subjects(epoch.number), epoch.partitions)

    async def commits(self, epoch: Epoch) -> int:
        """Count the commits of an epoch."""
        return sum(end or 0 for end in await self.ends(epoch))


@dataclass(frozen=True, slots=True)
class EpochRows:
    """The rows of another epoch, ready to take the place of the live ones."""

    sequences: tuple[int, ...]
    """The last sequence of each partition."""
    parked: int
    """Number of parked commits."""
    put: Change
    """Puts them in the place of the live ones."""


def rows_beside(place: ServicePlace, filled: Sequence[Filled]) -> EpochRows:
    """Return rows of runs that fill the schema beside."""
    sequences = tuple(one.sequence for one in filled)
    return EpochRows(sequences, sum(one.parked for one in filled), exchange(place.database, place.beside))


def rows_of_config(epoch: int, fold: ConfigFold) -> EpochRows:
    """Return the rows of the config service, which are its fold."""
    return EpochRows((fold.after,), len(fold.all_parked), partial(replace_rows, fold=fold, epoch=epoch))


@dataclass(frozen=True, slots=True)
class EpochSwitch:
    """The switch of one service to another epoch and its rows."""

    place: ServicePlace
    old: Epoch
    new: Epoch
    rows: EpochRows

    async def apply(self, connection: Connection) -> None:
        """Make the epoch and its rows current. Raises ConflictError when the old epoch is not current any more."""
        with storable():
            await self.rows.put(connection)
        await make_current(connection, self.place.service, self.new.number, self.old.number)

    async def is_done(self) -> bool:
        """Return whether the new epoch is current."""
        return (await current_epoch(self.place.database, self.place.service)).number == self.new.number


async def switch(switches: Sequence[EpochSwitch], require: Callable[[], Awaitable[None]]) -> None:
    """Switch services of one deployment, that of runs first. All or nothing, and on disk when this returns.

    Calls `require` right before the switch; it raises when the switch must not happen any more. Raises ConflictError
    when an old epoch is not current any more, InternalError when the database fails.
    """
    database = switches[0].place.database
    async with AsyncExitStack() as owned:
        for one in switches:
            partitions = max(one.old.partitions, one.new.partitions)
            await owned.enter_async_context(
                own_all_partitions(database, one.place.namespace, one.place.service, partitions)
            )
        await require()
        try:
            await apply_at_once(database, [one.apply for one in switches])
        except InternalError:
            # The commit may have happened and only its answer been lost.
            if not await switches[0].is_done():
                raise
    for one in switches:
        place, numbers = one.place, {"epoch": one.new.number, "before": one.old.number}
        log.info("another epoch is served", action="epoch_switched", service=place.service, **numbers)
        try:
            await publish_epoch(place.nats, database, place.namespace, place.service)
        except RunstreamError as error:
            log.warning(
                "NATS names the new epoch only when maintenance ends",
                action="epoch_untold",
                error=str(error),
            )


async def publish_epoch(nc: Client, database: Database, namespace: str, service: str) -> None:
    """Make NATS name the epoch that is current in the database, if it names another one.

    Of runs, drops the timers of the previous epoch: workers schedule the timeouts of running tasks again. Raises
    NotExistError when streams of the current epoch are missing, InternalError when NATS or the database fails.
    """
    current = next((epoch for epoch in await list_epochs(database, service) if epoch.current), None)
    described = await streams.described(nc, namespace, service)
    if current is None or described is None or described.epoch == current.number:
        return
    subjects = Subjects(namespace, service, current.number)
    if None in await streams.ends(nc, subjects, current.partitions):
        raise NotExistError(
            f"the database says that epoch {current.number} is current, but NATS lacks some of its streams",
            code="logIncomplete",
            hint="start a process that has the database: it restores the log from its archive, or says what to do",
        )
    if service == SERVICE:
        await _forget_timers(nc, namespace)
    await streams.describe(nc, subjects, current.partitions, instead=described)
    log.info("NATS names another epoch", action="epoch_told", epoch=current.number, before=described.epoch)


async def _forget_timers(nc: Client, namespace: str) -> None:
    try:
        await request(nc, f"STREAM.PURGE.{namespace}_TIMERS")
    except ApiError as error:
        if error.number != STREAM_NOT_FOUND:
            raise


async def remove_killed(place: ServicePlace) -> None:
    """Remove the leftovers of killed rebuilds, imports and deletions, when a process starts.

    Does nothing while one of them runs. What fails here is left to the next start.
    """
    try:
        async with rebuild_lock(place.database, seconds=0):
            await remove_leftovers(place)
    except ConflictError as error:
        log.info(error.message, action="leftovers_stay")
    except RunstreamError as error:
        log.warning(f"Leftovers cannot be removed yet: {error.message}", action="leftovers_stay")


async def remove_leftovers(place: ServicePlace) -> None:
    """Remove the leftovers of killed imports and deletions; the caller holds the `rebuild_lock`."""
    there = await epochs_in_nats(place)
    for epoch in await list_epochs(place.database, place.service):
        if epoch.state == "loading" or (epoch.state == "deleted" and epoch.number in there):
            await remove_epoch(place, epoch)
            log.warning("Deleted the leftovers of an epoch", action="leftover_epoch_deleted", epoch=epoch.number)
    await drop(place.database.url, place.beside)


async def remove_epoch(place: ServicePlace, epoch: Epoch) -> None:
    """Delete an epoch's streams with all their commits. Raises ConflictError for the current epoch."""
    await mark_deleted(place.database, place.service, epoch.number)
    subjects = place.subjects(epoch.number)
    await asyncio.gather(*(delete_stream(place.nats, subjects, partition) for partition in range(epoch.partitions)))


async def epochs_in_nats(place: ServicePlace) -> set[int]:
    """Return the epochs that have streams in NATS."""
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


async def activate(place: ServicePlace, number: int, hold: HoldMaintenance, say: OnStage) -> int:
    """Make this epoch current, as it was left; return the number of its parked commits.

    Raises NotExistError when it does not exist, BadRequestError for the current epoch or outside maintenance,
    ConflictError with the instances that are not parked, InternalError.
    """
    async with hold(f"the activation of epoch {number}") as maintenance, rebuild_lock(place.database):
        await remove_leftovers(place)
        old = await current_epoch(place.database, place.service)
        new = await _ready(place, number)
        if new.current:
            raise BadRequestError(f"epoch {number} is the current one already", code="epochCurrent")
        description = LogDescription(new.number, new.partitions, FORMAT)
        await streams.check(place.nats, place.subjects(new.number), description, new.partitions)
        ends = [end or 0 for end in await place.ends(new)]
        if place.service == config_folding.SERVICE:
            source = LogReader(place.nats, place.subjects(new.number), new.partitions)
            rows = rows_of_config(new.number, await fold_up_to(source, ends[config_folding.PARTITION]))
        else:
            into = place.rows_beside(new)
            indexes = await make_empty(into.database_url, into.schema)
            filled = await fill(into, ends, say)
            await make_indexes(into.database_url, into.schema, indexes)
            rows = rows_beside(place, filled)
        await switch([EpochSwitch(place, old, new, rows)], maintenance.require)
    log.info("An epoch was activated", action="epoch_activated", epoch=new.number, before=old.number)
    return rows.parked


async def delete(place: ServicePlace, number: int) -> Epoch:
    """Delete an epoch with its streams, for ever. Its archive in the object storage stays.

    Raises NotExistError when it does not exist, ConflictError for the current epoch.
    """
    async with rebuild_lock(place.database):
        await remove_leftovers(place)
        epoch = await _ready(place, number)
        if epoch.current:
            raise ConflictError(
                f"epoch {number} is the current one",
                code="epochCurrent",
                hint="activate another one first: runstream epochs activate",
            )
        await remove_epoch(place, epoch)
    log.warning("An epoch was deleted", action="epoch_deleted", epoch=number)
    return epoch


async def _ready(place: ServicePlace, number: int) -> Epoch:
    for epoch in await list_epochs(place.database, place.service):
        if epoch.number == number and epoch.state == "ready":
            return epoch
    raise NotExistError(
        f"there is no epoch {number}",
        code="epochDoesNotExist",
        hint="`runstream epochs list` shows the existing epochs",
    )
