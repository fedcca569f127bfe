"""An executor that is cut off ends its tasks before a scheduler declares it lost, and is suspect before that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, cast

import orjson
import psutil
import pytest
from msgspec.structs import asdict, replace

from runstream.domain.executor_task import ExecutorTask
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.executor.executor import make_executor
from runstream.jetstream.connection import nats_connection
from runstream.leases import LeaseBucket, LeaseChange, open_leases
from runstream.log.jetstream import open_log
from runstream.objects import PosixObjects
from runstream.scheduler import executor_registry
from runstream.scheduler.executor_registry import ExecutorRegistry
from runstream.sealing import Keyring
from runstream.settings import ExecutorSettings, Settings
from runstream.telemetry.metrics import CLOCK_SKEW
from tests.domain.world import offer
from tests.executor.rig import config_of, run_step, task_of
from tests.executor.test_life import appears
from tests.links import link
from tests.scheduler.standing import FakeExecutor, running, standing
from tests.servers import Servers


async def test_the_next_run_of_a_group_starts_after_a_cut_off_executor_ended_its_task(
    servers: Servers, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    seen: list[bool] = []

    def ends(_task: ExecutorTask) -> ExecutorTaskPhase:
        seen.append(psutil.pid_exists(int(pid_file.read_text())))
        return ExecutorTaskPhase.SUCCESS

    command = f"trap '' TERM; echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 1000"
    config = config_of(task_of("task", run_step(command)))
    async with standing(servers) as it, link(servers.nats_url) as cable, nats_connection(cable.url) as nats:
        settings = Settings(data_dir=tmp_path, executor=ExecutorSettings(sandbox="off"))
        log = await open_log(nats, servers.namespace, create=False, partitions=2)
        leases = await open_leases(nats, it.executors.bucket, seconds=2)
        executor = make_executor(settings, nats, log, PosixObjects(tmp_path / "objects"), leases, Keyring())
        async with running(await it.scheduler()), log:
            first, second = await it.create(config), await it.create(config)
            async with running(executor):
                await appears(pid_file)
                cable.cut()
                async with FakeExecutor(it, "other", outcome=ends).alive():
                    ended = await it.ended(first, second)
                cable.mend()
    assert seen == [False]
    tasks = ended[first].executor_tasks.values()
    lost = next(task.state for task in tasks if task.state.run_id == first)
    assert (lost.lost, lost.fail_error) == (True, executor_registry.GONE)


class _Leases:
    """Leases whose changes come from the test."""

    bucket = "executors"
    reconnects = 0

    def __init__(self) -> None:
        self.changes: asyncio.Queue[LeaseChange] = asyncio.Queue()
        self.held: dict[str, bytes] = {}
        self.stored: dict[str, int] = {}
        self.released: set[str] = set()

    @asynccontextmanager
    async def watching(self, *, patient: bool) -> AsyncIterator[_Leases]:
        yield self

    def __aiter__(self) -> _Leases:
        return self

    async def __anext__(self) -> LeaseChange:
        return await self.changes.get()


class _Board:
    """A board that hears what a test says."""

    def __init__(self, grace: float, on_time: Callable[[float], None]) -> None:
        self.leases = _Leases()
        self.gone: asyncio.Queue[str] = asyncio.Queue()
        self.offered: asyncio.Queue[str] = asyncio.Queue()
        self.withdrawn = asyncio.Event()
        self.board = ExecutorRegistry(
            cast("LeaseBucket", self.leases),
            grace,
            on_offer=self.offered.put_nowait,
            on_gone=lambda executor, _why: self.gone.put_nowait(executor),
            on_suspect=lambda _: self.withdrawn.set(),
            on_time=on_time,
        )

    def say(self, what: Literal["held", "released", "expired"]) -> None:
        value = renewal() if what == "held" else b""
        self.leases.changes.put_nowait(LeaseChange("ex1", what, value))


def renewal() -> bytes:
    """What the lease of an executor says."""
    return orjson.dumps(asdict(offer("ex1", 0)))


@asynccontextmanager
async def hearing(
    grace: float, on_time: Callable[[float], None] = lambda _: None, released: Collection[str] = ()
) -> AsyncIterator[_Board]:
    """Run a registry; the leases of `released` were released before it started."""
    made = _Board(grace, on_time)
    made.leases.released.update(released)
    task = asyncio.create_task(made.board.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize("what", ["expired", "released"])
async def test_no_executor_is_lost_before_its_whole_lease_has_passed_here(what: Literal["expired", "released"]) -> None:
    async with hearing(0.2) as it:
        begun = asyncio.get_running_loop().time()
        it.say("held")
        it.say(what)
        await it.offered.get()
        assert await it.gone.get() == "ex1"
        assert asyncio.get_running_loop().time() - begun >= 0.199  # clocks of the loop have milliseconds


@pytest.mark.parametrize(("what", "released"), [("expired", False), ("released", True)])
async def test_an_executor_that_released_its_lease_was_stopped(
    what: Literal["expired", "released"], released: bool
) -> None:
    async with hearing(0.01) as it:
        it.say("held")
        it.say(what)
        assert await it.gone.get() == "ex1"
        assert it.board.loss("ex1").released is released
        it.say("held")
        it.say("expired")
        assert await it.gone.get() == "ex1"
        assert not it.board.loss("ex1").released


async def test_a_scheduler_that_starts_later_knows_who_was_stopped() -> None:
    async with hearing(0.01, released=["ex1"]) as it:
        for executor in ("ex1", "ex2"):
            assert it.board.gone(executor) is None
            assert await it.gone.get() == executor
        assert [it.board.loss(executor).released for executor in ("ex1", "ex2")] == [True, False]


async def test_an_executor_that_renews_late_is_suspect_and_gets_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_registry, "SUSPECT_SECONDS", 0.02)
    async with hearing(60) as it:
        it.say("held")
        await it.offered.get()
        assert "ex1" in it.board.offers
        await it.withdrawn.wait()
        assert not it.board.offers
        assert it.board.gone("ex1") is None, "it is not given up"
        it.say("held")
        await it.offered.get()
        assert "ex1" in it.board.offers
        assert it.gone.empty()


async def test_an_executor_that_never_renews_after_registering_is_declared_lost() -> None:
    async with hearing(0.02) as it:
        assert it.board.gone("ex2") is None
        assert await it.gone.get() == "ex2"
        assert it.board.gone("ex2") == executor_registry.GONE


@pytest.mark.parametrize(("skew", "known"), [(-90.0, -90.0), (3600.0, 3600.0), (1.0, 0.0)])
async def test_the_clock_of_an_executor_is_compared_and_measured(
    monkeypatch: pytest.MonkeyPatch, skew: float, known: float
) -> None:
    measured: list[tuple[float, str]] = []
    monkeypatch.setattr(CLOCK_SKEW, "set", lambda value, executor: measured.append((value, executor)))
    async with hearing(60) as it:
        said = orjson.dumps(asdict(replace(offer("ex1", 0), at=1000.0 + skew)))
        it.leases.changes.put_nowait(LeaseChange("ex1", "held", said, nanoseconds=1000 * 10**9))
        await it.offered.get()
        assert it.board.skew("ex1") == known
    assert measured == [(skew, "ex1")]
