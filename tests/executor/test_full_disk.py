"""A disk that is full fails the step that meets it, by name; the executor takes no task until there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from runstream.events.executor_task import ExecutorTaskPhase
from runstream.executor import executor as executors
from runstream.objects import PosixObjects
from tests.executor.rig import rig, run_step, save_step, task_of

SIZE = 8 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


async def test_a_step_whose_log_fills_the_disk_fails_and_its_log_says_what_is_missing(
    small_disk: Path, tmp_path: Path
) -> None:
    async with rig(small_disk, objects=PosixObjects(tmp_path / "objects")) as it:
        task = await it.run(run_step(f"head -c {2 * SIZE} /dev/zero | tr '\\0' x"), run_step("echo never"))
        assert task.task.phase is ExecutorTaskPhase.FAILED
        assert task.task.fail_error.startswith("disk full: ")
        assert task.task.steps[0].phase is ExecutorTaskPhase.FAILED
        assert task.task.steps[1].start_time is None
        last = (await task.log()).splitlines()[-1]
        assert last.startswith("disk full: ")
        assert last.endswith(" bytes of the log missing here")
        assert (await it.run(run_step("echo fine"))).task.phase is ExecutorTaskPhase.SUCCESS


async def test_an_archive_that_fills_the_disk_fails_its_step_by_name(small_disk: Path, tmp_path: Path) -> None:
    async with rig(small_disk, objects=PosixObjects(tmp_path / "objects")) as it:
        task = await it.run(run_step(f"head -c {SIZE * 5 // 8} /dev/urandom > large"), save_step("large"))
        assert (task.task.steps[0].phase, task.task.steps[1].phase) == (
            ExecutorTaskPhase.SUCCESS,
            ExecutorTaskPhase.FAILED,
        )
        assert "disk full: " in task.task.fail_error


async def test_a_full_executor_takes_no_task_until_it_has_room(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "ROOM_SECONDS", 0.02)
    async with rig(small_disk, objects=PosixObjects(tmp_path / "objects")) as it:
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(SIZE - (256 << 10)))
        while not orjson.loads(it.leases.value())["full"]:
            it.leases.given.touching.clear()
            await it.leases.given.touching.wait()
        task = await it.assign(task_of("task", run_step("echo fine")))
        while not orjson.loads(it.leases.value())["open_tasks"]:
            it.leases.given.touching.clear()
            await it.leases.given.touching.wait()
        assert await task.commits() == 1, "it has not begun"
        ballast.unlink()
        assert (await task.settled()).phase is ExecutorTaskPhase.SUCCESS
        assert orjson.loads(it.leases.value())["full"] == ""
