"""A container engine that goes away, and an executor that is killed while pods run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from runstream.domain.executor import Offer
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.leases import decode_offer
from tests.docker_engine import IMAGE, DockerEngine, missing, needs_engine
from tests.executor.rig import CONTAINERS, HOST, SETTINGS, Rig, pod, rig, run_step, task_of

pytestmark = needs_engine


@pytest.fixture
def engine(open_path: Path) -> Iterator[DockerEngine]:
    """An engine of this test's own."""
    if missing():
        pytest.skip(missing())
    engine = DockerEngine(open_path)
    uvloop.run(engine.start())
    yield engine
    uvloop.run(engine.end_leftover())


def _offer(running: Rig) -> Offer:
    offer = decode_offer(running.executor_id, running.leases.value())
    assert offer is not None
    return offer


async def _said(running: Rig, *, away: bool) -> str:
    """Wait until the executor offers this, and return what it says."""
    while True:
        running.leases.given.touching.clear()
        offer = _offer(running)
        if bool(offer.engine_away) == away:
            assert offer.allow_pod
            return offer.engine_away
        await running.leases.given.touching.wait()


async def test_an_engine_that_dies_fails_its_tasks_alone_and_is_used_again_when_it_is_back(
    tmp_path: Path, engine: DockerEngine
) -> None:
    foreign = engine.cli("run", "-d", "--network=none", "--restart=always", IMAGE, "sleep", "600")
    settings = replace(SETTINGS, engine=engine.url, **CONTAINERS)
    async with rig(tmp_path, settings=settings) as running:
        endless = run_step("while :; do sleep 0.1; done")
        watched = await running.assign(task_of("task", endless, runtime=pod(IMAGE)))
        await watched.step_begun()
        await engine.kill()
        done = await watched.settled()
        assert done.phase is ExecutorTaskPhase.FAILED
        assert "the container engine is unreachable: " in await watched.log(0)
        assert await _said(running, away=True)
        refused = await running.run(run_step("true"), runtime=pod(IMAGE))
        assert "the container engine is unreachable: " in await refused.log(None)
        assert (await running.run(run_step("true"), runtime=HOST)).task.phase is ExecutorTaskPhase.SUCCESS
        await engine.start()
        assert await _said(running, away=False) == ""
        assert (await running.run(run_step("true"), runtime=pod(IMAGE))).task.phase is ExecutorTaskPhase.SUCCESS
    assert engine.containers(executorid=running.executor_id) == []
    assert engine.cli("ps", "-aq", "--no-trunc", "--filter", f"id={foreign}") == foreign


async def test_an_engine_that_is_not_there_at_first_is_waited_for_and_used_when_it_comes(
    tmp_path: Path, engine: DockerEngine
) -> None:
    await engine.end_leftover()
    settings = replace(SETTINGS, engine=engine.url, **CONTAINERS)
    async with rig(tmp_path, settings=settings) as running:
        assert await _said(running, away=True)
        await engine.start()
        await _said(running, away=False)
        assert _offer(running).engine.startswith("docker ")
