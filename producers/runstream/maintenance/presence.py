"""This process as others see it: one lease, whatever components it has, and what it hears of maintenance.

    lease taken -> what is asked for is read from the leader -> known: the parts may work, or are parked

The order makes it safe: whoever asks for maintenance and then sees all leases sees every process that may not have
heard. The same holds when a lease was lost and is taken again. Besides the lease a record without end of life says
who this is, so that a process that dies is missed; who says goodbye takes the record away.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from nats.aio.client import Client

from runstream.errors import InternalError
from runstream.jetstream.api import last_message
from runstream.leases import Lease, LeaseBucket, LeaseWatch
from runstream.lifecycle import Component, wait_for_event
from runstream.maintenance.control import maintenance_key
from runstream.maintenance.mode import Mode
from runstream.maintenance.records import Doing, InstanceRecord, ServiceRecord, decode_record, encode_record
from runstream.maintenance.requested import decode_requested
from runstream.release import version

LAST = "last."
"""Begins the keys of the records that outlive a lease."""
KEEP_SECONDS = 86_400
"""How long a lost process is remembered."""
_REFRESH_SECONDS = KEEP_SECONDS / 24
_RETRY_SECONDS = 0.5
log = structlog.get_logger()


class Instance(Component):
    """This process among the instances of the deployment."""

    name = "instance"

    def __init__(
        self, nc: Client, board: LeaseBucket, namespace: str, instance_id: str, components: Sequence[str], *modes: Mode
    ) -> None:
        """`board` is that of `<namespace>_instances`."""
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
        """Whether the lease is held; one of them is set."""
        self._away.set()
        self._listening = asyncio.Event()
        """Set before anything is read: no change falls between."""
        self._to_keep = asyncio.Event()
        for mode in modes:
            mode.on_change = self._changed

    async def run(self) -> None:
        """Be known and listen until `stopping` is set; then say goodbye."""
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._keep())
            parts = [
                tasks.create_task(self._listen()),
                tasks.create_task(self._stay_known()),
                *(tasks.create_task(mode.run()) for mode in self.modes.values()),
            ]
            await self.stopping.wait()
            keeping.cancel()
            await asyncio.wait({keeping})
            await self._say_goodbye()
            for part in parts:
                part.cancel()

    def record(self) -> InstanceRecord:
        """What is said of this process now."""
        services = {name: self._as_able(mode.record()) for name, mode in self.modes.items()}
        return InstanceRecord(
            self.id, self._components, socket.gethostname(), os.getpid(), version(), self._begun, services
        )

    def can(self, part: str, able: bool) -> None:
        """Say whether a part of this process reaches what it needs; one that does not counts as starting."""
        if able is (part in self._unable):
            (self._unable.discard if able else self._unable.add)(part)
            if self._lease is not None:
                self._lease.touch()

    async def fellows(self, part: str, service: str = "runs") -> AsyncIterator[Collection[str]]:
        """The ids of the instances whose part of this name works, from the moment when this one is among them.

        Nobody while this process does not hold its lease: others share its work out among themselves then.
        """
        known = False
        async with self.board.watching() as watch:
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
        """Hold the lease; lost, it is taken again."""
        await self._listening.wait()
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
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
                    "This process is not known to others", action="instance_lease_lost", error=str(group.exceptions[0])
                )
            await asyncio.sleep(_RETRY_SECONDS)

    async def _hold(self, lease: Lease) -> None:
        try:
            await lease.run()
        finally:
            self._here.clear()
            self._away.set()

    async def _learn(self) -> None:
        """Read what is asked for from the leader."""
        for mode in self.modes.values():
            subject = f"$KV.{self._control}.{maintenance_key(mode.service)}"
            found = await last_message(self._nc, f"KV_{self._control}", subject)
            if found is None:
                mode.hear(None, 0)
            else:
                mode.hear(decode_requested(found.data, found.time) if found.data else None, found.sequence)

    async def _listen(self) -> None:
        """Follow what is asked for; a change that was missed is found when the watch is there again."""
        watch = LeaseWatch(self._nc, self._control, maintenance_key("*"))
        await watch.open()
        self._listening.set()
        try:
            async for change in watch:
                mode = self.modes.get(change.key.partition(".")[2])
                if mode is not None:
                    said = decode_requested(change.value, datetime.now(UTC)) if change.what == "held" else None
                    mode.hear(said, change.sequence)
        finally:
            await watch.close()

    async def _keep(self) -> None:
        """Write the record that outlives the lease whenever a state changes, and long before it ends."""
        while True:
            self._to_keep.clear()
            try:
                await self._keep_last()
            except InternalError as error:
                log.debug("the record of this process waits", action="record_waits", why=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            await wait_for_event(self._to_keep, _REFRESH_SECONDS)

    async def _keep_last(self) -> None:
        await self.board.keep(LAST + self.id, encode_record(self.record()), KEEP_SECONDS)

    async def _say_goodbye(self) -> None:
        try:
            await self.board.forget(LAST + self.id)
        except InternalError as error:
            log.debug("this process ends without goodbye", action="record_left", why=str(error))
