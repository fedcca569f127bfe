"""What is asked for and how far everybody is, as one answer; who waits gets it when it has changed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import datetime

import msgspec

from runstream.maintenance.control import MaintenanceControl
from runstream.maintenance.mode import Mode
from runstream.maintenance.records import PartRecord, State
from runstream.maintenance.requested import Change, Requested
from runstream.maintenance.roster import Known, Roster


class InstanceShape(msgspec.Struct, frozen=True):
    """One process."""

    id: str
    components: tuple[str, ...]
    host: str
    pid: int
    version: str
    state: str
    """running, requested, draining, parked, resumed or lost."""
    last_state: str
    """Its state when it was heard last: of a lost one what it was."""
    since: datetime | None
    """When that state began."""
    parked: bool
    """Whether it is parked for what is asked for now, or was when it was lost."""
    epoch: int
    parts: dict[str, PartRecord]
    positions: dict[int, int]


class MaintenanceAnswer(
    msgspec.Struct, frozen=True, rename={"requested": "RequestedStatus", "current": "CurrentStatus"}
):
    """One service."""

    requested: bool
    """What is asked for."""
    current: bool
    """Whether the process that answers is parked."""
    service: str
    parked: bool
    """Whether everybody who is not lost is parked."""
    by: str
    reason: str
    since: datetime | None
    deadline: datetime | None
    instances: list[InstanceShape]
    history: list[Change]
    """The last changes, the oldest first."""
    tag: str = ""
    """Another one when anything but positions is different."""


class Overview:
    """Answers about the services of this process."""

    def __init__(self, control: MaintenanceControl, roster: Roster, modes: Mapping[str, Mode]) -> None:
        self.control = control
        self.roster = roster
        self._modes = modes
        self.ending = asyncio.Event()
        """Set when nobody is to wait any longer: the process stops."""

    async def status(self, service: str, *, unlike: str = "", seconds: float = 0.0) -> MaintenanceAnswer:
        """The answer; when its tag is `unlike` the next one, for which it waits so long. Raises UnavailableError."""
        answer = await self._answer(service)
        try:
            async with asyncio.timeout(seconds):
                while answer.tag == unlike:
                    change = self.roster.change
                    answer = await self._answer(service)
                    if answer.tag == unlike and not await self._changed(change):
                        break
        except TimeoutError:
            pass  # Nothing has changed: that is the answer.
        return answer

    async def _changed(self, change: asyncio.Event) -> bool:
        """Wait for the change; False when the process stops instead."""
        waits = [asyncio.create_task(event.wait()) for event in (change, self.ending)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self.ending.is_set()

    async def _answer(self, service: str) -> MaintenanceAnswer:
        requested = await self.control.requested(service)
        return _tagged(answer_of(service, requested, self.roster.known, self._modes[service].state))


def answer_of(service: str, requested: Requested | None, known: tuple[Known, ...], own: State) -> MaintenanceAnswer:
    """The answer, without its tag."""
    request = requested.id if requested is not None else ""
    shapes = [_instance(one, service, request) for one in known if one.state(service) is not None]
    enabled = requested is not None and requested.enabled
    return MaintenanceAnswer(
        requested=enabled,
        current=own is State.PARKED,
        service=service,
        parked=enabled and all(shape.parked for shape in shapes if shape.state != State.LOST),
        by=requested.by if requested is not None else "",
        reason=requested.why if requested is not None else "",
        since=requested.since if requested is not None else None,
        deadline=requested.deadline if requested is not None else None,
        instances=shapes,
        history=list(requested.history) if requested is not None else [],
    )


def _instance(known: Known, service: str, request: str) -> InstanceShape:
    record, of = known.record, known.record.services.get(service)
    return InstanceShape(
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
        parts=of.parts if of is not None else {},
        positions=of.positions if of is not None else {},
    )


def _tagged(answer: MaintenanceAnswer) -> MaintenanceAnswer:
    still = [msgspec.structs.replace(instance, positions={}) for instance in answer.instances]
    content = msgspec.json.encode(msgspec.structs.replace(answer, instances=still))
    return msgspec.structs.replace(answer, tag=hashlib.blake2b(content, digest_size=12).hexdigest())
