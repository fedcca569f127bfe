"""The instances of a deployment: the lease of this process, the roster of all, and the overview that the API shows.

    lease taken -> the request is read from the bucket's leader -> known: the components may work, or are parked

This order makes maintenance safe: after enabling it, a reader of all leases sees every process that may not have seen
the request. The same holds when a lease is lost and taken again. Beside its lease, a process keeps a record that does
not expire with it, so a process that dies shows up as lost; a clean stop deletes the record.

The overview wakes its readers when anything but a position changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec
import structlog
from nats.aio.client import Client

from runstream import api
from runstream.backoff import Backoff, retry
from runstream.errors import BadRequestError, InternalError, NotExistError
from runstream.jetstream.api import last_message
from runstream.leases import Lease, LeaseBucket, LeaseChange, LeaseWatch, open_leases
from runstream.lifecycle import BackgroundTasks, Component, StrictTaskGroup, wait_for_event, wait_for_first
from runstream.maintenance.mode import Mode
from runstream.maintenance.records import (
    Doing,
    InstanceRecord,
    ServiceRecord,
    State,
    decode_record,
    encode_record,
)
from runstream.maintenance.request import MaintenanceControl, Requested, decode_requested, maintenance_key
from runstream.release import version
from runstream.settings import Settings

INSTANCE_SECONDS = 3
"""Length of an instance's lease, in seconds; partitions are free earlier, when its database session ends."""
LAST = "last."
"""Prefix of the keys of records that outlive a lease."""
KEEP_SECONDS = 86_400
"""Lifetime of a lost process's record, in seconds."""
_REFRESH_SECONDS = KEEP_SECONDS / 24
_RETRY_SECONDS = 0.5
log = structlog.get_logger()


async def open_instance_leases(client: Client, settings: Settings) -> LeaseBucket:
    """Return the leases of all instances; create their bucket where it is missing."""
    return await open_leases(
        client, f"{settings.namespace}_instances", seconds=INSTANCE_SECONDS, replicas=settings.replicas
    )


class ThisInstance(Component):
    """This process among the instances of the deployment."""

    name = "instance"

    def __init__(
        self, nc: Client, board: LeaseBucket, namespace: str, instance_id: str, components: Sequence[str], *modes: Mode
    ) -> None:
        """`board` is the bucket `<namespace>_instances`."""
        super().__init__()
        self.id = instance_id
        self.board = board
        self.modes: Mapping[str, Mode] = {mode.service: mode for mode in modes}
        self._nc = nc
        self._control = f"{namespace}_control"
        self._components = tuple(components)
        self._begun = datetime.now(UTC)
        self._lease: Lease | None = None
        self._states: Collection[object] = ()
        self._unable: set[str] = set()
        self._here, self._away = asyncio.Event(), asyncio.Event()
        """The state of the lease; exactly one of the two is set."""
        self._away.set()
        self._listening = asyncio.Event()
        """Set before the request is read, so that no change is missed in between."""
        self._to_keep = asyncio.Event()
        for mode in modes:
            mode.on_change = self._changed

    async def run(self) -> None:
        """Hold the lease and follow the request until `stopping` is set; then delete the record."""
        async with BackgroundTasks() as background:
            keeping = background.keep(self._keep())
            background.keep(self._listen())
            background.keep(self._stay_known())
            for mode in self.modes.values():
                background.keep(mode.run())
            await self.stopping.wait()
            keeping.cancel()
            await asyncio.wait({keeping})
            await self._deregister()

    def record(self) -> InstanceRecord:
        """Return what this process publishes now."""
        services = {name: self._as_able(mode.record()) for name, mode in self.modes.items()}
        return InstanceRecord(
            self.id, self._components, socket.gethostname(), os.getpid(), version(), self._begun, services
        )

    def can(self, part: str, able: bool) -> None:
        """Report whether a component reaches what it needs; one that does not is published as starting."""
        if able is (part in self._unable):
            (self._unable.discard if able else self._unable.add)(part)
            if self._lease is not None:
                self._lease.touch()

    async def members(self, part: str, service: str = "runs") -> AsyncIterator[Collection[str]]:
        """Yield the ids of the instances whose component of this name works, once this instance is among them.

        Empty while this process does not hold its lease: its peers divide its work among themselves then.
        """
        known = False
        async with self.board.watching(patient=True) as watch:
            working = {key for key, value in watch.held.items() if decode_record(key, value).does(service, part)}
            reading = asyncio.ensure_future(anext(watch))
            try:
                while True:
                    known = known or self.id in working
                    here = self._here.is_set()
                    if known:
                        yield frozenset(working) if here else frozenset()
                    before = set(working)
                    while working == before and self._here.is_set() is here:
                        turned = asyncio.ensure_future((self._away if here else self._here).wait())
                        try:
                            await asyncio.wait({reading, turned}, return_when=asyncio.FIRST_COMPLETED)
                        finally:
                            turned.cancel()
                        if reading.done():
                            change = reading.result()
                            works = change.what == "held" and decode_record(change.key, change.value).does(
                                service, part
                            )
                            (working.add if works else working.discard)(change.key)
                            reading = asyncio.ensure_future(anext(watch))
            finally:
                reading.cancel()

    def _as_able(self, record: ServiceRecord) -> ServiceRecord:
        parts = {
            name: replace(part, doing=Doing.STARTING) if name in self._unable and part.doing is Doing.RUNNING else part
            for name, part in record.parts.items()
        }
        return replace(record, parts=parts)

    def _changed(self) -> None:
        states = [mode.state for mode in self.modes.values()]
        if states != self._states:
            self._states = states
            self._to_keep.set()
        if self._lease is not None:
            self._lease.touch()

    async def _stay_known(self) -> None:
        """Hold the lease; take it again when it is lost."""
        await self._listening.wait()
        while True:
            try:
                async with StrictTaskGroup() as tasks:
                    self._lease = self.board.lease(self.id, lambda: encode_record(self.record()))
                    tasks.create_task(self._hold(self._lease))
                    await self._lease.held.wait()
                    self._here.set()
                    self._away.clear()
                    await self._keep_last()
                    await self._learn()
                    self.started.set()
            except* InternalError as group:
                log.warning(
                    "This process has lost its lease; taking it again",
                    action="instance_lease_lost",
                    error=str(group.exceptions[0]),
                )
            await asyncio.sleep(_RETRY_SECONDS)

    async def _hold(self, lease: Lease) -> None:
        try:
            await lease.run()
        finally:
            self._here.clear()
            self._away.set()

    async def _learn(self) -> None:
        """Read the request from the bucket's leader."""
        for mode in self.modes.values():
            subject = f"$KV.{self._control}.{maintenance_key(mode.service)}"
            found = await last_message(self._nc, f"KV_{self._control}", subject)
            if found is None:
                mode.update(None, 0)
            else:
                mode.update(decode_requested(found.data, found.time) if found.data else None, found.sequence)

    async def _listen(self) -> None:
        """Follow the request; a watch that was interrupted finds a missed change when it is back."""
        watch = LeaseWatch(self._nc, self._control, maintenance_key("*"))
        await watch.open()
        self._listening.set()
        try:
            async for change in watch:
                mode = self.modes.get(change.key.partition(".")[2])
                if mode is not None:
                    latest = decode_requested(change.value, datetime.now(UTC)) if change.what == "held" else None
                    mode.update(latest, change.sequence)
        finally:
            await watch.close()

    async def _keep(self) -> None:
        """Write the record that outlives the lease at each change of state, and long before it expires."""

        def note(error: InternalError, _delay: float) -> None:
            log.debug(
                "the record of this process cannot be written yet; trying again", action="record_waits", why=str(error)
            )

        while True:
            await retry(self._keep_last, InternalError, Backoff(_RETRY_SECONDS), note)
            await wait_for_event(self._to_keep, _REFRESH_SECONDS)

    async def _keep_last(self) -> None:
        self._to_keep.clear()
        await self.board.keep(LAST + self.id, encode_record(self.record()), KEEP_SECONDS)

    async def _deregister(self) -> None:
        try:
            await self.board.forget(LAST + self.id)
        except InternalError as error:
            log.debug(
                "the record of this process could not be deleted; it shows as lost",
                action="record_left",
                why=str(error),
            )


@dataclass(frozen=True, slots=True)
class KnownInstance:
    """An instance, and whether it is lost."""

    record: InstanceRecord
    lost: bool

    def state(self, service: str) -> State | None:
        """Return its state; None where it does not work for the service."""
        if self.lost:
            return State.LOST
        of = self.record.services.get(service)
        return of.state if of is not None else None

    def is_parked(self, service: str, request: str) -> bool:
        """Return whether it is, or died, parked for this request, or does not work for the service."""
        of = self.record.services.get(service)
        if of is None:
            return bool(self.record.services)
        return of.state is State.PARKED and of.request == request

    @property
    def title(self) -> str:
        """Its components, id, process and host, for messages."""
        record = self.record
        return f"{'+'.join(record.components) or 'unreadable'} {record.id} (process {record.pid} on {record.host})"


class Roster(Component):
    """The known instances, from their leases and the records that outlive them."""

    name = "roster"

    def __init__(self, board: LeaseBucket) -> None:
        """`board` is the bucket `<namespace>_instances`."""
        super().__init__()
        self._board = board
        self._living: dict[str, InstanceRecord] = {}
        self.last_records: dict[str, InstanceRecord] = {}
        """The latest record of each instance by its id: it outlives the lease."""
        self._change = asyncio.Event()

    @property
    def change(self) -> asyncio.Event:
        """The event of the next change."""
        return self._change

    @property
    def known(self) -> tuple[KnownInstance, ...]:
        """All instances by components and id, lost ones last."""
        return all_instances(self._living, self.last_records)

    async def run(self) -> None:
        """Follow until `stopping` is set."""
        async with (
            self._board.watching() as living,
            self._board.watching(f"{LAST}*") as last,
            BackgroundTasks() as background,
        ):
            self._living = {key: decode_record(key, value) for key, value in living.held.items()}
            self.last_records = {_id(key): decode_record(_id(key), value) for key, value in last.held.items()}
            self.started.set()
            background.keep(self._follow(living, self._living, lambda key: key))
            background.keep(self._follow(last, self.last_records, _id))
            await self.stopping.wait()

    async def forget(self, instance_id: str) -> None:
        """Delete the record of a lost instance. Raise NotExistError, BadRequestError for a living one."""
        if instance_id in self._living:
            raise BadRequestError(
                f"instance {instance_id} is not lost",
                code="instanceNotLost",
                hint="stop it: it then deletes its record itself",
            )
        if instance_id not in self.last_records:
            raise NotExistError(f"instance {instance_id} doesn't exist", code="instanceDoesNotExist")
        await self._board.forget(LAST + instance_id)
        log.warning("A lost instance is forgotten", action="instance_forgotten", instance=instance_id)

    async def _follow(self, watch: LeaseWatch, records: dict[str, InstanceRecord], name: Callable[[str], str]) -> None:
        async for change in watch:
            if _apply_change(records, name(change.key), change):
                changed, self._change = self._change, asyncio.Event()
                changed.set()


def all_instances(living: dict[str, InstanceRecord], last: dict[str, InstanceRecord]) -> tuple[KnownInstance, ...]:
    """Return living and lost instances by components and id, lost ones last."""
    there = [KnownInstance(record, lost=False) for record in living.values()]
    missing = [KnownInstance(record, lost=True) for key, record in last.items() if key not in living]
    return tuple(sorted((*there, *missing), key=lambda one: (one.lost, one.record.components, one.record.id)))


async def read_instances(board: LeaseBucket) -> tuple[KnownInstance, ...]:
    """Read all instances from NATS. Raise UnavailableError."""
    async with board.watching() as living, board.watching(f"{LAST}*") as last:
        return all_instances(
            {key: decode_record(key, value) for key, value in living.held.items()},
            {_id(key): decode_record(_id(key), value) for key, value in last.held.items()},
        )


def _apply_change(records: dict[str, InstanceRecord], key: str, change: LeaseChange) -> bool:
    """Apply a change of a lease; return whether anything but positions differs."""
    before = records.get(key)
    if change.what != "held":
        return records.pop(key, None) is not None
    records[key] = decode_record(key, change.value)
    return before is None or _without_positions(before) != _without_positions(records[key])


def _without_positions(record: InstanceRecord) -> InstanceRecord:
    return replace(record, services={name: replace(of, positions={}) for name, of in record.services.items()})


def _id(key: str) -> str:
    return key.removeprefix(LAST)


class Overview:
    """The source of answers about maintenance of the services of this process."""

    def __init__(self, control: MaintenanceControl, roster: Roster, modes: Mapping[str, Mode]) -> None:
        self.control = control
        self.roster = roster
        self._modes = modes
        self.ending = asyncio.Event()
        """Set when the process stops, so that no request waits any longer."""

    async def status(self, service: str, *, unlike: str = "", seconds: float = 0.0) -> api.Maintenance:
        """Return the answer; while its tag is `unlike`, wait up to `seconds` for another. Raise UnavailableError."""
        answer = await self._answer(service)
        try:
            async with asyncio.timeout(seconds):
                while answer.tag == unlike:
                    change = self.roster.change
                    answer = await self._answer(service)
                    if answer.tag == unlike:
                        await wait_for_first(change.wait(), self.ending.wait())
                        if self.ending.is_set():
                            break
        except TimeoutError:
            pass  # nothing has changed: return the same answer
        return answer

    async def _answer(self, service: str) -> api.Maintenance:
        requested = await self.control.requested(service)
        return _tagged(answer_of(service, requested, self.roster.known, self._modes[service].state))


def answer_of(
    service: str, requested: Requested | None, known: tuple[KnownInstance, ...], own: State
) -> api.Maintenance:
    """Return the answer, without its tag."""
    request = requested.id if requested is not None else ""
    shapes = [_instance(one, service, request) for one in known if one.state(service) is not None]
    enabled = requested is not None and requested.enabled
    return api.Maintenance(
        requested=enabled,
        current=own is State.PARKED,
        service=service,
        parked=enabled and all(shape.parked for shape in shapes if shape.state != State.LOST),
        by=requested.by if requested is not None else "",
        reason=requested.why if requested is not None else "",
        since=requested.since if requested is not None else None,
        deadline=requested.deadline if requested is not None else None,
        instances=tuple(shapes),
        history=requested.history if requested is not None else (),
    )


def _instance(known: KnownInstance, service: str, request: str) -> api.Instance:
    record, of = known.record, known.record.services.get(service)
    return api.Instance(
        id=record.id,
        components=record.components,
        host=record.host,
        pid=record.pid,
        version=record.version,
        state=known.state(service) or "",
        last_state=of.state if of is not None else "",
        since=of.since if of is not None else None,
        parked=known.is_parked(service, request),
        epoch=of.epoch if of is not None else 0,
        parts={name: api.Part(part.doing, part.under_way) for name, part in of.parts.items()} if of is not None else {},
        positions=of.positions if of is not None else {},
    )


def _tagged(answer: api.Maintenance) -> api.Maintenance:
    still = tuple(msgspec.structs.replace(instance, positions={}) for instance in answer.instances)
    content = msgspec.json.encode(msgspec.structs.replace(answer, instances=still))
    return msgspec.structs.replace(answer, tag=hashlib.blake2b(content, digest_size=12).hexdigest())
