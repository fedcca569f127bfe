"""The executor's registration, written when its offer has changed, and its lease, which shows that it is alive.

After a lost lease schedulers may already have declared the executor lost, so it ends its tasks at once and then
registers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from runstream.commits import Head, StoredCommit
from runstream.domain.executor import Executor, Offer
from runstream.errors import RunstreamError
from runstream.events.executor import (
    ExecutorDeleted,
    ExecutorDrained,
    ExecutorLost,
    ExecutorRegistered,
    ExecutorUndrained,
)
from runstream.executor.reporter import Clock
from runstream.executor.task import Reason, Runner
from runstream.folding import UnfitCommitError, fold_executor
from runstream.leases import encode_offer
from runstream.log.port import AppendConflictError, Log
from runstream.release import version
from runstream.settings import ExecutorSettings
from runstream.subjects import Address, partition_of

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
        ...

    def touch(self) -> None:
        """Write the value soon."""
        ...

    async def run(self) -> None:
        """Hold the lease until cancelled. Raises a RunstreamError when it is lost or cannot be acquired."""
        ...


class Leases(Protocol):
    """The bucket of leases (`runstream.leases.LeaseBucket`)."""

    def lease(self, key: str, value: Callable[[], bytes]) -> HeldLease:
        """Return a lease on the key."""
        ...


class Presence:
    """The registration of one executor, and the holder of its lease."""

    def __init__(
        self,
        executor_id: str,
        settings: ExecutorSettings,
        log: Log,
        leases: Leases,
        runner: Runner,
        *,
        open_tasks: Callable[[], dict[str, int]],
        end_tasks: Callable[[Reason], None],
        on_held: Callable[[], None],
        clock: Clock,
    ) -> None:
        """`on_held` is called each time the lease is acquired."""
        self.address = Address(partition_of(executor_id, log.partitions), "executor", executor_id)
        self._runner = runner
        self._log = log
        self._lease = leases.lease(executor_id, self._value)
        self._open_tasks = open_tasks
        self._end_tasks = end_tasks
        self._on_held = on_held
        self._clock = clock
        self._version = 0
        self._draining = False
        self.full = ""
        """Why the disk has no space for a task; empty if it has."""
        self._gone = asyncio.Event()
        self._touching: asyncio.TimerHandle | None = None
        self._abilities: dict[str, Any] = {
            "archs": (_ARCHITECTURES.get(platform.machine(), platform.machine()),),
            "labels": settings.labels,
            "allow_privileged_containers": settings.allow_privileged_containers,
            "allow_host": settings.allow_host,
            "active_tasks_limit": settings.active_tasks_limit,
        }
        """Fields common to the registration and each offer."""
        runner.on_change(self._engine_changed)

    def _offered(self) -> dict[str, Any]:
        # Only the setup shows whether there is the sandbox that is required, and whether there is an engine.
        return {
            **self._abilities,
            "allow_host": self._abilities["allow_host"] and self._runner.allow_host,
            "allow_pod": self._runner.allow_pod,
        }

    def _engine_changed(self) -> None:
        self._lease.touch()  # At once: schedulers assign tasks until they know.

    def _refusal(self) -> str:
        allowed = self._abilities["allow_host"] and not self._runner.allow_host
        return self._runner.sandbox.partition(": ")[2] if allowed else ""

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
                    self._end_tasks(Reason.DELETED)
                if isinstance(event, ExecutorDeleted | ExecutorLost):
                    self._gone.set()
                if isinstance(event, ExecutorDrained | ExecutorUndrained):
                    self._draining = isinstance(event, ExecutorDrained)
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
                    self._end_tasks(Reason.LEASE)
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
                self._on_held()
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
            sandbox=self._runner.sandbox,
        )
        while True:
            history = await self._log.history(self.address)
            last = history[-1] if history else None
            head = Head() if last is None else Head(last.commit.version, last.position.sequence)
            known: Executor | None = None
            for stored in history:
                with contextlib.suppress(UnfitCommitError):  # The commit is parked, and has no effect.
                    known = fold_executor(known, stored.commit)
            self._draining = known is not None and known.draining
            self._version = head.version
            if last is not None and last.commit.events[-1:] == (registration,):
                return
            actor = f"executor:{self.address.id}"
            try:
                await self._log.append(head.next_commit(self.address, (registration,), time=self._clock(), actor=actor))
            except AppendConflictError:
                # Another writer was first, such as a scheduler that declared this executor lost: read the log again.
                continue
            self._version += 1
            log.info("the executor registered", action="executor_registered", executor=self.address.id)
            return

    def _touch(self) -> None:
        self._touching = None
        self._lease.touch()

    def _value(self) -> bytes:
        offer = Offer(
            executor_id=self.address.id,
            **self._offered(),
            open_tasks=self._open_tasks(),
            draining=self._draining,
            full=self.full,
            refused=self._refusal(),
            engine=self._runner.engine,
            engine_away=self._runner.engine_away,
            at=self._clock().timestamp(),
        )
        return encode_offer(offer)
