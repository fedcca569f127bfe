"""The mode of a process: whether it may work for a service, and how far its components have parked or resumed.

    maintenance enabled  -> every component drains and parks -> the log refuses appends -> parked
    maintenance disabled -> the log opens the current epoch  -> every component starts to work

A process starts at rest, until it has read the request: one that starts during maintenance is parked at once.

A `Parkable` makes its component anew each time, which lets the component start in another epoch without any state of
the one before:

    parked -> made and started -> running -> draining -> stopped -> parked
                                     ^           |
                                     +-----------+   maintenance ended before it was drained
"""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from runstream.backoff import Backoff, retry
from runstream.errors import RunstreamError
from runstream.jetstream.api import UnavailableError
from runstream.lifecycle import Component, wait_for_first
from runstream.maintenance.records import Doing, PartRecord, ServiceRecord, State, state_of
from runstream.maintenance.request import Requested

_RETRY_SECONDS = 0.5
Make = Callable[[], Awaitable[Component]]
log = structlog.get_logger()


class RestingLog(Protocol):
    """A log that can refuse appends for a while (`runstream.log.jetstream.JetStreamLog`)."""

    @property
    def epoch(self) -> int:
        """The epoch in use."""

    async def rest(self) -> None:
        """Refuse appends from now on; return when none is under way."""

    async def resume(self) -> None:
        """Accept appends again, in the current epoch. Raise a RunstreamError when that is not possible."""


@dataclass(slots=True, eq=False)
class Participant:
    """One component of the process that works for the service; made by `Mode.join`."""

    name: str
    _changed: Callable[[], None]
    doing: Doing = Doing.PARKED
    _component: Component | None = None

    @property
    def under_way(self) -> int:
        """Number of tasks or requests to finish before it is parked."""
        return self._component.under_way if self._component is not None else 0

    def positions(self) -> Mapping[int, int]:
        """Return the last position it has read of each partition."""
        return self._component.positions() if self._component is not None else {}

    def follow(self, component: Component) -> None:
        """Report the state of this component from now on; it is read whenever the lease is renewed."""
        self._component = component

    def become(self, doing: Doing) -> None:
        """Set what the component does, and publish it."""
        self.doing = doing
        self._changed()


class Mode:
    """The mode of one service in this process: at work, or in maintenance."""

    def __init__(self, service: str, log: RestingLog) -> None:
        self.service = service
        self.request: Requested | None = None
        """The maintenance that is requested; None without one, or before the request was read."""
        self._log = log
        self._requested: Requested | None = None
        self._sequence = -1
        self._parts: dict[str, Participant] = {}
        self._shut = True
        """True if no component may start: from all parked until the log is in use again."""
        self._at_rest = True
        self._state = State.RESUMED
        self._since = datetime.now(UTC)
        self._changed = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None
        """Called whenever there is a change to publish."""

    @property
    def open(self) -> bool:
        """True if the components may work."""
        return not self._shut and self.request is None

    @property
    def state(self) -> State:
        """The state of this process."""
        doings = [part.doing for part in self._parts.values()]
        return state_of(requested=self.request is not None, at_rest=self._at_rest, parts=doings)

    def why(self) -> str:
        """Return start and reason of the maintenance for an error message; empty, or with a leading space."""
        request = self.request
        if request is None:
            return ""
        return f" since {request.since:%Y-%m-%d %H:%M} UTC{f': {request.why}' if request.why else ''}"

    def join(self, name: str) -> Participant:
        """Add a component of this process, which is parked until it reports another state."""
        part = self._parts[name] = Participant(name, self._notify)
        return part

    def update(self, requested: Requested | None, sequence: int) -> None:
        """Apply the value of the key, unless a later one is known; `sequence` is the key's."""
        if sequence <= self._sequence:
            return
        self._sequence, self._requested = sequence, requested
        self.request = requested if requested is not None and requested.enabled else None
        self._notify()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is evaluated after each change of the mode or its components."""
        while not condition():
            await self._changed.wait()

    async def run(self) -> None:
        """Close the log when all components are parked and open it when they may resume, until cancelled."""
        await self._log.rest()
        while True:
            await self.until(lambda: self._sequence >= 0 and self.request is None)
            await self._resume()
            self._shut = self._at_rest = False
            self._notify()
            await self.until(lambda: self.request is not None and self._parked())
            self._shut = True
            await self._log.rest()
            self._at_rest = True
            self._notify()

    def record(self) -> ServiceRecord:
        """Return what this process publishes about the service."""
        parts = {part.name: PartRecord(part.doing, part.under_way) for part in self._parts.values()}
        # Where several components read the same partition, the position of the first that joined counts.
        positions = dict(ChainMap(*(dict(part.positions()) for part in self._parts.values())))
        obeyed = self._requested.id if self._requested is not None else ""
        return ServiceRecord(self.state, obeyed, self._since, self._log.epoch, parts, positions)

    def _parked(self) -> bool:
        return all(part.doing is Doing.PARKED for part in self._parts.values())

    async def _resume(self) -> None:
        def note(error: RunstreamError, _: float) -> None:
            why = str(error)
            log.warning(
                "The log cannot be used yet; trying again", action="resume_waits", service=self.service, error=why
            )

        await retry(self._log.resume, RunstreamError, Backoff(_RETRY_SECONDS), note)

    def _notify(self) -> None:
        state = self.state
        if state is not self._state:
            self._state, self._since = state, datetime.now(UTC)
            # Before the first request, a start is no news.
            write = log.info if self._requested is not None else log.debug
            write(
                f"Maintenance of {self.service}: this process is {state.value}",
                action=f"instance_{state.value}",
                service=self.service,
            )
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self.on_change()


class Parkable(Component):
    """A component that runs what `make` makes whenever the mode is open."""

    def __init__(self, name: str, mode: Mode, make: Make) -> None:
        super().__init__()
        self.name = name
        self._mode = mode
        self._make = make
        self._part: Participant = mode.join(name)

    async def run(self) -> None:
        """Work and park until `stopping` is set. Raise what the component raises."""
        while await self._may_work():
            try:
                if await self._served():
                    return
            finally:
                self._part.become(self._unless_stopping(Doing.PARKED))

    async def _may_work(self) -> bool:
        """Wait until the mode is open; return False when the process stops instead."""
        mode = self._mode
        while not self.stopping.is_set():
            if mode.open:
                # Before the first await: from here on no reader may take this process for parked.
                self._part.become(Doing.STARTING)
                return True
            if mode.request is not None:
                self.started.set()
            await self._first(mode.until(lambda: mode.open or (mode.request is not None and not self.started.is_set())))
        return False

    async def _served(self) -> bool:
        """Make a component and let it work until maintenance or stop; return True when it ended by itself."""
        component = await self._try_make()
        if component is None:
            return False
        self._part.follow(component)
        try:
            return await self._try_start(component) and await self._worked(component)
        finally:
            self._part.become(self._unless_stopping(Doing.DRAINING))
            await self._ended(component)

    def _unless_stopping(self, doing: Doing) -> Doing:
        return Doing.STOPPING if self.stopping.is_set() else doing

    async def _try_make(self) -> Component | None:
        """Return a new component; None when NATS is away. Raise UnavailableError while the process starts."""
        try:
            return await self._make()
        except UnavailableError as error:
            if not self.started.is_set():
                raise
            log.warning(f"The {self.name} cannot resume yet; trying again", action="component_waits", why=error.message)
        await self._first(asyncio.sleep(_RETRY_SECONDS))
        return None

    async def _ended(self, component: Component) -> None:
        """Stop it; at once when the process cannot wait any longer."""
        component.stop_seconds = min(component.stop_seconds, self.stop_seconds)
        try:
            await component.stop()
        except asyncio.CancelledError:
            component.stop_seconds = 0.0
            await component.stop()
            raise

    async def _try_start(self, component: Component) -> bool:
        """Start it; return False when maintenance or a stop comes first."""
        starting = asyncio.ensure_future(component.start())
        try:
            await self._first(_done(starting), self._closed())
            if not starting.done():
                return False
            starting.result()
        finally:
            starting.cancel()
        self._part.become(Doing.RUNNING)
        self.started.set()
        return True

    async def _worked(self, component: Component) -> bool:
        """Let it work until it is drained or the process stops; return True when it ended by itself."""
        ended = asyncio.ensure_future(component.wait())
        try:
            while True:
                await self._first(_done(ended), self._closed())
                if ended.done():
                    ended.result()
                    return True
                request = self._mode.request
                if self.stopping.is_set() or (request is not None and await self._drained(component, request, ended)):
                    return False
                if self._mode.open:
                    self._part.become(Doing.RUNNING)
        finally:
            ended.cancel()

    async def _drained(self, component: Component, request: Requested, ended: asyncio.Future[None]) -> bool:
        """Drain it; return False when the request changes, or it ends, before it is drained."""
        self._part.become(Doing.DRAINING)
        draining = asyncio.ensure_future(component.drain(_seconds_left(request)))

        def other() -> bool:
            return self._mode.request is None or self._mode.request.id != request.id

        try:
            await self._first(_done(draining), _done(ended), self._mode.until(other))
            if draining.done():
                draining.result()
                return True
            draining.cancel()
            await asyncio.wait({draining})
            return False
        finally:
            draining.cancel()

    async def _closed(self) -> None:
        await self._mode.until(lambda: not self._mode.open)

    async def _first(self, *waits: Coroutine[None, None, None]) -> None:
        """Return when one of these does, or when the process stops."""
        await wait_for_first(*waits, self.stopping.wait())


async def _done(future: asyncio.Future[None]) -> None:
    await asyncio.wait({future})


def _seconds_left(request: Requested) -> float | None:
    if request.deadline is None:
        return None
    return max((request.deadline - datetime.now(UTC)).total_seconds(), 0.0)
