"""A container engine that goes away, and an executor that is killed while pods run."""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from runstream.codec import zstd
from runstream.domain.executor import Offer
from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStopRequested
from runstream.events.run_config import Step
from runstream.executor.drivers.docker import engine as engines
from runstream.executor.drivers.docker import pod as pods
from runstream.leases import decode_offer
from runstream.objects.caches import StoredCaches
from tests.disks import take_all
from tests.docker_engine import IMAGE, DockerEngine, missing, needs_engine
from tests.executor.rig import CONTAINERS, HOST, SETTINGS, Rig, pod, rig, run_step, task_of
from tests.registry import registry

pytestmark = needs_engine
_SECOND = 1_000_000_000


@pytest.fixture
def full_engine(open_path: Path) -> Iterator[DockerEngine]:
    """An engine on a disk of its own."""
    if missing():
        pytest.skip(missing())
    (data := open_path / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(data)], check=True)
    engine = DockerEngine(open_path)
    uvloop.run(engine.start())
    yield engine
    uvloop.run(engine.end_leftover())


@pytest.fixture
def engine_with_quotas(open_path: Path) -> Iterator[DockerEngine]:
    """An engine whose storage can limit the disk of a container: Btrfs, in a file."""
    if missing() or shutil.which("mkfs.btrfs") is None:
        pytest.skip(missing() or "no mkfs.btrfs (apt-get install btrfs-progs)")
    disk = open_path / "disk"
    with disk.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.btrfs", "-q", disk], check=True, capture_output=True)
    (data := open_path / "data").mkdir()
    if subprocess.run(["mount", "-o", "loop", disk, data], check=False, capture_output=True).returncode:
        pytest.skip("this machine has no Btrfs")
    engine = DockerEngine(open_path, storage="btrfs")
    uvloop.run(engine.start())
    yield engine
    uvloop.run(engine.end_leftover())


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


async def test_an_engine_that_hangs_fails_its_tasks_and_loses_their_containers_when_it_goes_on(
    tmp_path: Path, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(engines, "ANSWER_SECONDS", 2.0)
    settings = replace(SETTINGS, engine=engine.url, **CONTAINERS)
    async with rig(tmp_path, settings=settings) as running:
        watched = await running.assign(task_of("task", run_step("while :; do sleep 0.1; done"), runtime=pod(IMAGE)))
        await watched.step_begun()
        engine.hang()
        begun = await running.assign(task_of("begun", run_step("true"), runtime=pod(IMAGE)))
        done = await watched.settled()
        assert done.phase is ExecutorTaskPhase.FAILED
        assert "the container engine is unreachable: it did not answer within" in await watched.log(0)
        assert (await begun.settled()).phase is ExecutorTaskPhase.FAILED
        assert "the container engine is unreachable: it did not answer within" in await begun.log(None)
        assert await _said(running, away=True)
        engine.go_on()
        await _said(running, away=False)
        assert (await running.run(run_step("true"), runtime=pod(IMAGE))).task.phase is ExecutorTaskPhase.SUCCESS
        await _removed(engine, running)


async def test_tasks_end_in_time_by_a_stop_and_by_timeouts_though_the_engine_hangs(
    tmp_path: Path, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "QUIET_SECONDS", 3600.0)  # the watch does not find out
    monkeypatch.setattr(pods, "END_SECONDS", 0.5)
    settings = replace(SETTINGS, engine=engine.url, active_tasks_limit=4, **CONTAINERS)
    quiet, loud = "sleep 600", "while :; do echo; sleep 0.1; done"
    async with rig(tmp_path, settings=settings) as running:
        stopped, timed_out, step_timed_out, silent = watched = [
            await running.assign(task_of(name, step, runtime=pod(IMAGE)), timeout=timeout * _SECOND)
            for name, step, timeout in (
                ("stopped", run_step(loud), 0),
                ("timed-out", run_step(loud), 3),
                ("step-timed-out", run_step(loud, step_timeout_interval=3 * _SECOND), 0),
                ("silent", run_step(quiet, no_output_timeout=3 * _SECOND), 0),
            )
        ]
        for each in watched:
            await each.step_begun()
        engine.hang()
        await stopped.say(ExecutorTaskStopRequested())
        phases = [(await each.settled()).phase for each in watched]
        assert phases == [ExecutorTaskPhase.STOPPED, *[ExecutorTaskPhase.FAILED] * 3]
        assert "The task timed out after 3s." in await timed_out.log(0)
        assert "The step timed out after 3s." in await step_timed_out.log(0)
        assert "The step timed out after 3s without output." in await silent.log(0)
        assert _offer(running).engine_away == ""
        engine.go_on()
        await _removed(engine, running)


async def _removed(engine: DockerEngine, running: Rig) -> None:
    """Wait until the executor's containers are removed."""
    while engine.containers(executorid=running.executor_id):
        await asyncio.to_thread(engine.cli, "version")


async def test_an_engine_that_is_not_there_at_first_is_waited_for_and_used_when_it_comes(
    tmp_path: Path, engine: DockerEngine
) -> None:
    await engine.end_leftover()
    settings = replace(SETTINGS, engine=engine.url, **CONTAINERS)
    async with rig(tmp_path, settings=settings) as running:
        assert await _said(running, away=True)
        await engine.start()
        await _said(running, away=False)
        offer = _offer(running)
        assert offer.engine.startswith("docker ")
        told = engine.cli("info", "--format", "{{.NCPU}} {{.MemTotal}}")
        assert told.split() == [str(offer.engine_cpu // 1000), str(offer.engine_memory)]


async def test_a_full_disk_of_the_engine_fails_setups_and_steps_with_that_reason_until_it_has_room(
    tmp_path: Path, full_engine: DockerEngine
) -> None:
    engine, ballast = full_engine, full_engine.folder / "data" / "ballast"
    settings = replace(SETTINGS, engine=engine.url, **CONTAINERS)
    restore = Step(type="restore_cache", keys=("bomb",))
    with registry() as address:
        async with rig(tmp_path / "executor", settings=settings) as running:
            bomb = tmp_path / "bomb"
            bomb.write_bytes(_bomb(1 << 30))
            assert bomb.stat().st_size < 1 << 20
            assert await StoredCaches(running.objects).create("/project/p", "bomb", bomb)
            done = await running.run(restore, runtime=pod(IMAGE))
            assert "the files cannot be written: " in (said := await done.log(0))
            assert "No space left on device" in said
            assert done.task.steps[0].phase is ExecutorTaskPhase.FAILED
            await _removed(engine, running)
            take_all(ballast)
            for image, said in (
                (IMAGE, "refused"),
                (f"{address}/some/a:1", f"image {address}/some/a:1 cannot be pulled"),
            ):
                done = await running.run(run_step("true"), runtime=pod(image))
                assert done.task.setup_step.phase is ExecutorTaskPhase.FAILED
                assert said in (log := await done.log(None))
                assert "no space left on device (the disk of the container engine is full)" in log
            ballast.unlink()
            done = await running.run(run_step("true"), runtime=pod(IMAGE))
            assert done.task.phase is ExecutorTaskPhase.SUCCESS
            assert running.executor is not None
            await running.executor.stop()
    assert engine.containers(executorid=running.executor_id) == []


async def test_a_container_writes_up_to_the_limit_of_its_disk_where_the_storage_has_quotas(
    tmp_path: Path, engine_with_quotas: DockerEngine
) -> None:
    settings = replace(SETTINGS, engine=engine_with_quotas.url, task_disk_bytes=20 << 20, **CONTAINERS)
    async with rig(tmp_path, settings=settings) as running:
        steps = [run_step(f"dd if=/dev/zero of=/big bs=1M count={size}") for size in (5, 50)]
        done = await running.run(*steps, runtime=pod(IMAGE))
        assert f"; {20 << 20} bytes of disk" in (setup := await done.log(None))
        assert "Not enforced" not in setup
        assert [step.phase for step in done.task.steps] == [ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED]
        assert "Disk quota exceeded" in (log := await done.log(1))
        assert log.endswith("The task has probably reached a limit (executor.task_disk_bytes).\n")
        assert running.executor is not None
        await running.executor.stop()


def _bomb(size: int) -> bytes:
    """An archive of one file of zeros."""
    target = io.BytesIO()
    info = tarfile.TarInfo("zeros")
    info.size = size
    with zstd.ZstdFile(target, "wb") as packed:
        packed.write(info.tobuf())
        for _ in range(size >> 20):
            packed.write(bytes(1 << 20))
        packed.write(bytes(1024))
    return target.getvalue()
