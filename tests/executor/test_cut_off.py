"""The step logs that a killed executor had written are kept, marked as incomplete, and served."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runstream.commits import Head
from runstream.events.executor_task import ExecutorTaskLost, ExecutorTaskPhase, ExecutorTaskStarted
from runstream.events.run import RunArchived, RunCancelled, RunDeleted
from runstream.objects import paths
from runstream.steplogs.log_index import LogIndexer, encode
from runstream.steplogs.log_state import CUT_OFF
from runstream.subjects import Address
from tests.executor.rig import rig, run_step, task_of
from tests.factories import run_created


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("left", ["half a li", "a line\n", ""])
async def test_the_log_of_a_step_that_had_just_begun_is_kept(tmp_path: Path, left: str, lost: bool) -> None:
    """The log knows the task's start alone: the rest was gathered when the executor was killed."""
    async with rig(tmp_path, start=False) as it:
        task = await it.assign(task_of("task", run_step("echo never"), run_step("echo never")))
        now = datetime.now(UTC)
        await task.say(ExecutorTaskStarted(now))
        if lost:
            await task.say(ExecutorTaskLost(now, "executor lost"))
        folder = it.task_folder(task)
        folder.mkdir(parents=True)
        (folder / "setup.log").write_text("Starting pod.\n")
        (folder / "0.log").write_text(left)
        (folder / "0.index").write_bytes(encode(LogIndexer().index()))
        assert it.executor is not None
        await it.executor.start()
        ended = await task.until(
            lambda task: not task.open and task.steps[0].log_settled and task.setup_step.log_settled
        )
        assert (ended.phase, ended.steps[0].phase) == (ExecutorTaskPhase.FAILED, ExecutorTaskPhase.FAILED)
        assert ended.steps[0].start_time is not None
        assert ended.steps[1].phase is ExecutorTaskPhase.NOT_STARTED
        assert ended.fail_error.startswith("executor lost")
        assert await task.log(0) == (f"{left}\n" if left == "half a li" else left) + f"{CUT_OFF}\n"
        assert await task.log(None) == "Starting pod.\n"
        assert not await it.is_stored(paths.log_index(task.run_task_id, 0))  # its times are unknown


async def test_the_log_of_a_lost_task_is_not_stored_once_its_run_is_deleted(tmp_path: Path) -> None:
    """Nothing would refer to it any more."""
    async with rig(tmp_path, start=False) as it:
        task = await it.assign(task_of("task", run_step("echo never")))
        now = datetime.now(UTC)
        await task.say(ExecutorTaskStarted(now), ExecutorTaskLost(now, "executor lost"))
        address = Address(task.address.partition, "run", task.task.run_id)
        events = (run_created(run_config=task.task.run_config), RunCancelled(""), RunArchived(), RunDeleted(""))
        await it.log.append(Head().next_commit(address, events, time=now, actor="test"))
        folder = it.task_folder(task)
        folder.mkdir(parents=True)
        (folder / "0.log").write_text("a line\n")
        assert it.executor is not None
        await it.executor.start()
        other = await it.run(run_step("echo other"))
        assert await other.log() == "other\n"
        for _ in range(1000):
            if not folder.exists():
                break
            await asyncio.sleep(0.01)  # sleeps: nothing tells that a folder is removed
        assert not folder.exists()
        assert not await it.is_stored(paths.step_log(task.run_task_id, 0))
        assert await task.commits() == 2
