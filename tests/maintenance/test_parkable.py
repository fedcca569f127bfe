"""A component is drained and stopped when maintenance is requested, and created again when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from runstream.errors import InternalError
from runstream.jetstream.api import UnavailableError
from runstream.lifecycle import Component
from runstream.maintenance.mode import Mode, Parkable
from runstream.maintenance.records import State
from runstream.maintenance.request import Order, Requested, disabled, enabled

NOW = datetime.now(UTC)


class FakeLog:
    """A log that says whether it rests."""

    def __init__(self) -> None:
        self.epoch = 1
        self.resting = False
        self.fails = 0
        self.may_rest = asyncio.Event()
        self.may_rest.set()
        self.asked_to_rest = asyncio.Event()

    async def rest(self) -> None:
        self.resting = True
        self.asked_to_rest.set()
        await self.may_rest.wait()

    async def resume(self) -> None:
        if self.fails:
            self.fails -= 1
            raise UnavailableError("the log", "it is away")
        self.resting = False


class Work(Component):
    """Drains when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.draining = asyncio.Event()
        self.drained = asyncio.Event()
        self.asked: list[float | None] = []
        self.gives_up = False
        self.dies = asyncio.Event()
        self.ended = False

    async def run(self) -> None:
        self.started.set()
        waits = [asyncio.create_task(event.wait()) for event in (self.stopping, self.dies)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.ended = True
        if self.dies.is_set():
            raise InternalError("it died", code="died")

    async def drain(self, seconds: float | None) -> None:
        self.asked.append(seconds)
        self.draining.set()
        try:
            await self.drained.wait()
        except asyncio.CancelledError:
            self.gives_up = True
            raise

    def positions(self) -> dict[int, int]:
        return {0: 7}


@dataclass
class Stage:
    """A mode, and what works in it."""

    log: FakeLog = field(default_factory=FakeLog)
    made: list[Work] = field(default_factory=list)
    asked: Requested | None = None
    changes: int = 0

    def __post_init__(self) -> None:
        self.mode = Mode("runs", self.log)
        self.parkable = Parkable("work", self.mode, self._make)

    async def _make(self) -> Work:
        self.made.append(Work())
        return self.made[-1]

    def rests(self) -> bool:
        return self.log.resting

    def enable(self, deadline: datetime | None = None) -> None:
        self._say(enabled(self.asked, self._order(deadline)))

    def disable(self) -> None:
        self._say(disabled(self.asked, self._order(None)))

    def state(self) -> State:
        return self.mode.state

    async def is_in(self, state: State) -> None:
        await self.mode.until(lambda: self.mode.state is state)

    def _say(self, asked: Requested | None) -> None:
        self.asked = asked
        self.mode.update(asked, self.changes)

    def _order(self, deadline: datetime | None) -> Order:
        self.changes += 1
        return Order(str(self.changes), "test", "", NOW, deadline)


@asynccontextmanager
async def staged(*, enabled: bool = False) -> AsyncIterator[Stage]:
    stage = Stage()
    if enabled:
        stage.enable()
    else:
        stage.mode.update(None, 0)
    running = asyncio.create_task(stage.mode.run())
    try:
        await stage.parkable.start()
        yield stage
    finally:
        await stage.parkable.stop()
        running.cancel()
        assert all(work.ended for work in stage.made)


async def test_from_running_to_parked_and_back() -> None:
    async with staged() as stage:
        assert stage.state() is State.RUNNING
        (work,) = stage.made
        stage.enable()
        await work.draining.wait()
        assert stage.state() is State.DRAINING
        assert not stage.rests()
        work.drained.set()
        await stage.is_in(State.PARKED)
        assert work.ended
        assert stage.rests()
        record = stage.mode.record()
        assert (record.state, record.request, record.positions) == (State.PARKED, "1", {0: 7})
        stage.log.epoch = 2
        stage.disable()
        await stage.is_in(State.RUNNING)
        assert len(stage.made) == 2
        assert not stage.rests()
        assert stage.mode.record().epoch == 2


async def test_it_is_parked_only_when_the_log_rests() -> None:
    async with staged() as stage:
        stage.log.may_rest.clear()
        stage.log.asked_to_rest.clear()
        stage.enable()
        stage.made[0].drained.set()
        await stage.log.asked_to_rest.wait()
        assert stage.state() is State.DRAINING
        stage.log.may_rest.set()
        await stage.is_in(State.PARKED)


async def test_what_starts_in_maintenance_is_parked_at_once() -> None:
    async with staged(enabled=True) as stage:
        await stage.is_in(State.PARKED)
        assert not stage.made
        stage.disable()
        await stage.is_in(State.RUNNING)
        assert len(stage.made) == 1


async def test_what_is_not_drained_goes_on_when_maintenance_ends() -> None:
    async with staged() as stage:
        stage.enable()
        await stage.made[0].draining.wait()
        stage.disable()
        await stage.is_in(State.RUNNING)
        assert stage.made[0].gives_up
        assert len(stage.made) == 1


async def test_another_maintenance_while_draining_brings_its_own_deadline() -> None:
    async with staged() as stage:
        (work,) = stage.made
        stage.enable()
        await work.draining.wait()
        work.draining.clear()
        stage.disable()
        stage.enable(datetime.now(UTC) + timedelta(hours=1))
        await work.draining.wait()
        first, second = work.asked
        assert first is None
        assert 3500 < (second or 0) <= 3600
        work.drained.set()
        await stage.is_in(State.PARKED)
        assert stage.mode.record().request == "3"


async def test_the_end_is_not_missed_while_the_log_is_away() -> None:
    async with staged(enabled=True) as stage:
        await stage.is_in(State.PARKED)
        stage.log.fails = 1
        stage.disable()
        assert stage.state() is State.RESUMED
        await stage.is_in(State.RUNNING)


async def test_older_announcements_are_ignored() -> None:
    async with staged() as stage:
        stage.enable()
        stage.made[0].drained.set()
        await stage.is_in(State.PARKED)
        stage.mode.update(None, 0)
        assert stage.state() is State.PARKED


async def test_its_death_is_reported() -> None:
    async with staged() as stage:
        stage.made[0].dies.set()
        with pytest.raises(InternalError, match="it died"):
            await stage.parkable.wait()


async def test_a_process_stops_while_it_drains() -> None:
    async with staged() as stage:
        stage.enable()
        await stage.made[0].draining.wait()
        await stage.parkable.stop()
        assert stage.made[0].ended


async def test_a_stop_that_cannot_wait_leaves_nothing() -> None:
    class Stubborn(Work):
        async def run(self) -> None:
            self.started.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended = True

    stubborn = Stubborn()

    async def make() -> Stubborn:
        return stubborn

    mode = Mode("runs", FakeLog())
    mode.update(None, 0)
    running = asyncio.create_task(mode.run())
    parkable = Parkable("work", mode, make)
    await parkable.start()
    parkable.stop_seconds = 0.0
    await parkable.stop()
    assert stubborn.ended
    running.cancel()
