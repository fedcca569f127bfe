"""The executor's registration, written when its offer has changed, and its lease, which shows that it is alive.

After a lost lease schedulers may already have declared the executor lost, so it ends its tasks at once and then
registers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from runstream.commits import StoredCommit
from runstream.domain.executor import Offer, RegisteredExecutor
from runstream.errors import RunstreamError
from runstream.events.executor import (
    ExecutorDeleted,
    ExecutorDrained,
    ExecutorLost,
    ExecutorRegistered,
    ExecutorUndrained,
)
from runstream.executor.drivers.capabilities import Capabilities
from runstream.executor.reporter import Clock
from runstream.executor.task import EndReason
from runstream.folding import UnfitCommitError, fold_executor
from runstream.leases import encode_offer
from runstream.log.port import AppendConflictError, Log
from runstream.log.runs import head_of
from runstream.release import version
from runstream.settings import ExecutorSettings
from runstream.subjects import Address

_RETRY_SECONDS = 1.0
_TOUCH_SECONDS = 0.5
"""Time over which changes of the offer are gathered, in seconds, because each write goes to disk."""
_ARCHITECTURES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64", "i686": "386"}

log = structlog.get_logger()


class HeldLease(Protocol):
    """A lease on the executor's key (`runstream.leases.Lease`)."""

    held: asyncio.Event

    @property
    def trusted(self) -> bool:
        """True while no other process can consider the lease expired."""

    def touch(self) -> None:
        """Write the value soon."""

    async def run(self) -> None:
        """Hold the lease until cancelled. Raises a RunstreamError when it is lost or cannot be acquired."""


class Leases(Protocol):
    """The bucket of leases (`runstream.leases.LeaseBucket`)."""

    def lease(self, key: str, value: Callable[[], bytes], renewed: Callable[[float], None]) -> HeldLease:
        """Return a lease on the key."""


@dataclass
class Presence:
    """The registration of one executor, and the holder of its lease."""

    address: Address
    """The executor's aggregate."""
    settings: ExecutorSettings
    log: Log
    leases: Leases
    capabilities: Capabilities
    open_tasks: Callable[[], dict[str, int]]
    end_tasks: Callable[[EndReason], None]
    on_held: Callable[[], None]
    """Called each time the lease is acquired."""
    clock: Clock
    full: str = ""
    """Why there is no disk space, or no file descriptor, for a task; empty if there is."""
    draining: bool = False
    """True while the log says that this executor is drained: schedulers assign it no tasks."""
    _version: int = 0
    _gone: asyncio.Event = field(default_factory=asyncio.Event)
    _touching: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self._lease = self.leases.lease(self.address.id, self._value, self._renewed)
        self.capabilities.on_change(self._lease.touch)  # At once: schedulers assign tasks until they know.

    def _offered(self) -> dict[str, Any]:
        """Return the fields common to the registration and each offer."""
        return {
            "archs": self.capabilities.archs or (_ARCHITECTURES.get(platform.machine(), platform.machine()),),
            "labels": self.settings.labels,
            "allow_privileged_containers": self.settings.allow_privileged_containers,
            # Only the setup shows whether there is the sandbox that is required, and whether there is an engine.
            "allow_host": self.settings.allow_host and self.capabilities.allow_host,
            "allow_pod": self.capabilities.allow_pod,
            "active_tasks_limit": self.settings.active_tasks_limit,
        }

    @property
    def held(self) -> asyncio.Event:
        """Set while the lease is held."""
        return self._lease.held

    @property
    def trusted(self) -> bool:
        """True while no scheduler can declare this executor lost: only then may a task begin."""
        return self._lease.trusted

    def touch(self) -> None:
        """Publish the changed number of open tasks soon."""
        if self._touching is None:
            self._touching = asyncio.get_running_loop().call_later(_TOUCH_SECONDS, self._touch)

    def observe(self, stored: StoredCommit) -> None:
        """Handle a commit of this executor's aggregate."""
        if stored.commit.version > self._version:
            for event in stored.commit.events:
                if isinstance(event, ExecutorDeleted):
                    self.end_tasks(EndReason.DELETED)
                if isinstance(event, ExecutorDeleted | ExecutorLost):
                    self._gone.set()
                if isinstance(event, ExecutorDrained | ExecutorUndrained):
                    self.draining = isinstance(event, ExecutorDrained)
                    self._lease.touch()  # At once: schedulers assign tasks until they know.

    async def run(self) -> None:
        """Register and hold the lease until cancelled."""
        try:
            while True:
                try:
                    self._gone.clear()
                    await self._register()
                    await self._hold()
                except RunstreamError as error:
                    self.end_tasks(EndReason.LEASE)
                    log.warning(f"cannot hold the executor's lease; trying again: {error}", action="executor_absent")
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            if self._touching is not None:
                self._touching.cancel()

    async def _hold(self) -> None:
        """Hold the lease until the log says that the executor is lost or deleted. Raises a RunstreamError when it is
        lost."""
        holding = asyncio.ensure_future(self._lease.run())
        held = asyncio.ensure_future(self._lease.held.wait())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({holding, held, gone}, return_when=asyncio.FIRST_COMPLETED)
            if self._lease.held.is_set():
                self.on_held()
            await asyncio.wait({holding, gone}, return_when=asyncio.FIRST_COMPLETED)
            if holding.done():
                holding.result()
        finally:
            for task in (holding, held, gone):
                task.cancel()
            await asyncio.wait({holding, held, gone})

    async def _register(self) -> None:
        """Append the executor's offer, unless the log has the same one."""
        registration = ExecutorRegistered(
            **self._offered(),
            dynamic=False,
            executor_group=self.address.id,
            runstream_version=version(),
            sandbox=self.capabilities.sandbox,
        )
        while True:
            history = await self.log.history(self.address)
            head = head_of(history)
            known: RegisteredExecutor | None = None
            for stored in history:
                with contextlib.suppress(UnfitCommitError):  # The commit is parked, and has no effect.
                    known = fold_executor(known, stored.commit)
            self.draining = known is not None and known.draining
            self._version = head.version
            if history and history[-1].commit.events[-1:] == (registration,):
                return
            actor = f"executor:{self.address.id}"
            try:
                await self.log.append(head.next_commit(self.address, (registration,), time=self.clock(), actor=actor))
            except AppendConflictError:
                # Another writer was first, such as a scheduler that declared this executor lost: read the log again.
                continue
            self._version += 1
            log.info("the executor registered", action="executor_registered", executor=self.address.id)
            return

    def _renewed(self, until: float) -> None:
        self.capabilities.act_until(until, lambda: self.end_tasks(EndReason.LEASE))

    def _touch(self) -> None:
        self._touching = None
        self._lease.touch()

    def _value(self) -> bytes:
        refuses_host = self.settings.allow_host and not self.capabilities.allow_host
        offer = Offer(
            executor_id=self.address.id,
            **self._offered(),
            open_tasks=self.open_tasks(),
            draining=self.draining,
            full=self.full,
            refused=self.capabilities.sandbox.partition(": ")[2] if refuses_host else "",
            engine=self.capabilities.engine,
            engine_away=self.capabilities.engine_away,
            engine_cpu=self.capabilities.engine_cpu,
            engine_memory=self.capabilities.engine_memory,
            at=self.clock().timestamp(),
        )
        return encode_offer(offer)
