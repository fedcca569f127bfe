"""Whether this process may work for a service, and how far its parts are with stopping or going on.

    maintenance asked for -> every part drains and parks -> the log rests -> parked
    its end asked for     -> the log is where it is to be now -> every part begins to work

The process is at rest until it knows that nothing is asked for: one that starts during maintenance is parked at once.
"""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from runstream.errors import RunstreamError
from runstream.lifecycle import Component
from runstream.maintenance.records import Doing, PartRecord, ServiceRecord, State, state_of
from runstream.maintenance.requested import Requested

_RETRY_SECONDS = 0.5
log = structlog.get_logger()


class RestingLog(Protocol):
    """The log of the service, as far as it is to rest (`runstream.log.jetstream.JetStreamLog`)."""

    @property
    def epoch(self) -> int:
        """The epoch that is read and appended to."""
        ...

    async def rest(self) -> None:
        """Refuse appends from now on; returns when none is under way."""
        ...

    async def resume(self) -> None:
        """Accept appends again, in the epoch that is current now. Raises a RunstreamError when that is not possible."""
        ...


@dataclass(slots=True, eq=False)
class Part:
    """One part of the process that works for the service; made by `Mode.join`."""

    name: str
    _changed: Callable[[], None]
    doing: Doing = Doing.PARKED
    _component: Component | None = None

    @property
    def under_way(self) -> int:
        """How much it still has to do before it is parked."""
        return self._component.under_way if self._component is not None else 0

    def positions(self) -> Mapping[int, int]:
        """How far it has read, or had when it was parked."""
        return self._component.positions() if self._component is not None else {}

    def follow(self, component: Component) -> None:
        """This is what works now; asked whenever the lease is renewed."""
        self._component = component

    def become(self, doing: Doing) -> None:
        """Say what the part does now."""
        self.doing = doing
        self._changed()


class Mode:
    """The mode of one service in this process."""

    def __init__(self, service: str, log: RestingLog) -> None:
        self.service = service
        self.request: Requested | None = None
        """The maintenance that is asked for; None when there is none, or nothing is known yet."""
        self._log = log
        self._said: Requested | None = None
        self._heard = -1
        self._parts: dict[str, Part] = {}
        self._shut = True
        """Whether no part may begin: from the moment when all were parked until the log is in use again."""
        self._at_rest = True
        self._state = State.RESUMED
        self._since = _now()
        self._changed = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None
        """Called whenever there is something new to publish."""

    @property
    def open(self) -> bool:
        """Whether the parts are to work."""
        return not self._shut and self.request is None

    @property
    def state(self) -> State:
        """How far this process is."""
        doings = [part.doing for part in self._parts.values()]
        return state_of(requested=self.request is not None, at_rest=self._at_rest, parts=doings)

    def why(self) -> str:
        """What to tell somebody who is refused: since when, and the reason; begins with a space or is empty."""
        asked = self.request
        if asked is None:
            return ""
        return f" since {asked.since:%Y-%m-%d %H:%M} UTC{f': {asked.why}' if asked.why else ''}"

    def join(self, name: str) -> Part:
        """A part of this process that works for the service; parked until it says otherwise."""
        part = self._parts[name] = Part(name, self._notify)
        return part

    def hear(self, said: Requested | None, sequence: int) -> None:
        """Take in what the key says; `sequence` is the key's: what is older than what was heard is left out."""
        if sequence <= self._heard:
            return
        self._heard, self._said = sequence, said
        self.request = said if said is not None and said.enabled else None
        self._notify()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something holds of this mode or its parts."""
        while not reached():
            await self._changed.wait()

    async def run(self) -> None:
        """Let the log rest and work as the parts do, until cancelled."""
        await self._log.rest()
        while True:
            await self.until(lambda: self._heard >= 0 and self.request is None)
            await self._resume()
            self._shut = self._at_rest = False
            self._notify()
            await self.until(lambda: self.request is not None and self._parked())
            self._shut = True
            await self._log.rest()
            self._at_rest = True
            self._notify()

    def record(self) -> ServiceRecord:
        """What this process says about the service."""
        parts = {part.name: PartRecord(part.doing, part.under_way) for part in self._parts.values()}
        # Where several parts read the same partition, the first that joined speaks for the process.
        positions = dict(ChainMap(*(dict(part.positions()) for part in self._parts.values())))
        obeyed = self._said.id if self._said is not None else ""
        return ServiceRecord(self.state, obeyed, self._since, self._log.epoch, parts, positions)

    def _parked(self) -> bool:
        return all(part.doing is Doing.PARKED for part in self._parts.values())

    async def _resume(self) -> None:
        while True:
            try:
                return await self._log.resume()
            except RunstreamError as error:
                log.warning("The log cannot be used yet", action="resume_waits", service=self.service, error=str(error))
            await asyncio.sleep(_RETRY_SECONDS)

    def _notify(self) -> None:
        state = self.state
        if state is not self._state:
            self._state, self._since = state, _now()
            # Where nobody ever asked for maintenance there is nothing to tell.
            tell = log.info if self._said is not None else log.debug
            tell(
                f"Maintenance of {self.service}: this process says {state.value}",
                action=f"instance_{state.value}",
                service=self.service,
            )
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self.on_change()


def _now() -> datetime:
    return datetime.now(UTC)
