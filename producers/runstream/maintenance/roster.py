"""All instances of a deployment, as their leases say it; those that died without goodbye are kept as lost.

Who waits for something of them is woken by changes; that an instance has read on is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from runstream.errors import BadRequestError, NotExistError
from runstream.leases import LeaseBucket, LeaseChange, LeaseWatch
from runstream.lifecycle import Component
from runstream.maintenance.presence import LAST
from runstream.maintenance.records import InstanceRecord, State, decode_record

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Known:
    """One instance, and whether it holds its lease."""

    record: InstanceRecord
    lost: bool

    def state(self, service: str) -> State | None:
        """How far it is with the service; None when it has nothing to do with it."""
        if self.lost:
            return State.LOST
        of = self.record.services.get(service)
        return of.state if of is not None else None

    def is_parked(self, service: str, request: str) -> bool:
        """Whether it is, or was when it died, parked for this request, or has nothing to do with the service."""
        of = self.record.services.get(service)
        if of is None:
            return bool(self.record.services)
        return of.state is State.PARKED and of.request == request

    @property
    def title(self) -> str:
        """What people call it."""
        record = self.record
        return f"{'+'.join(record.components) or 'unreadable'} {record.id} (process {record.pid} on {record.host})"


class Roster(Component):
    """Follows the leases and the records that outlive them."""

    name = "roster"

    def __init__(self, board: LeaseBucket) -> None:
        """`board` is that of `<namespace>_instances`."""
        super().__init__()
        self._board = board
        self._living: dict[str, InstanceRecord] = {}
        self._last: dict[str, InstanceRecord] = {}
        self._change = asyncio.Event()

    @property
    def change(self) -> asyncio.Event:
        """Set at the next change."""
        return self._change

    @property
    def known(self) -> tuple[Known, ...]:
        """Everybody, by components and id; the lost ones last."""
        return everybody(self._living, self._last)

    async def run(self) -> None:
        """Follow until `stopping` is set."""
        async with (
            asyncio.TaskGroup() as tasks,
            self._board.watching() as living,
            self._board.watching(f"{LAST}*") as last,
        ):
            self._living = {key: decode_record(key, value) for key, value in living.held.items()}
            self._last = {_id(key): decode_record(_id(key), value) for key, value in last.held.items()}
            self.started.set()
            following = [
                tasks.create_task(self._follow(living, self._living, lambda key: key)),
                tasks.create_task(self._follow(last, self._last, _id)),
            ]
            await self.stopping.wait()
            for task in following:
                task.cancel()
            await asyncio.wait(following)

    async def forget(self, instance_id: str) -> None:
        """Take a lost instance away. Raises NotExistError, BadRequestError for one that is there."""
        if instance_id in self._living:
            raise BadRequestError(
                f"instance {instance_id} is not lost",
                code="instanceNotLost",
                hint="stop it: then it says goodbye itself",
            )
        if instance_id not in self._last:
            raise NotExistError(f"instance {instance_id} doesn't exist", code="instanceDoesNotExist")
        await self._board.forget(LAST + instance_id)
        log.warning("A lost instance is forgotten", action="instance_forgotten", instance=instance_id)

    async def _follow(self, watch: LeaseWatch, records: dict[str, InstanceRecord], name: Callable[[str], str]) -> None:
        async for change in watch:
            if _taken_in(records, name(change.key), change):
                changed, self._change = self._change, asyncio.Event()
                changed.set()


def everybody(living: dict[str, InstanceRecord], last: dict[str, InstanceRecord]) -> tuple[Known, ...]:
    """Who is there, and who should be."""
    there = [Known(record, lost=False) for record in living.values()]
    missing = [Known(record, lost=True) for key, record in last.items() if key not in living]
    return tuple(sorted((*there, *missing), key=lambda one: (one.lost, one.record.components, one.record.id)))


async def read_everybody(board: LeaseBucket) -> tuple[Known, ...]:
    """Who is there now, read anew. Raises UnavailableError."""
    async with board.watching() as living, board.watching(f"{LAST}*") as last:
        return everybody(
            {key: decode_record(key, value) for key, value in living.held.items()},
            {_id(key): decode_record(_id(key), value) for key, value in last.held.items()},
        )


def _taken_in(records: dict[str, InstanceRecord], key: str, change: LeaseChange) -> bool:
    """Whether there is something new."""
    before = records.get(key)
    if change.what != "held":
        return records.pop(key, None) is not None
    records[key] = decode_record(key, change.value)
    return before is None or _without_positions(before) != _without_positions(records[key])


def _without_positions(record: InstanceRecord) -> InstanceRecord:
    return replace(record, services={name: replace(of, positions={}) for name, of in record.services.items()})


def _id(key: str) -> str:
    return key.removeprefix(LAST)
