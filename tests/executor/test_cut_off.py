"""The step logs that a killed executor had written are kept, marked as incomplete, and served."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from runstream.events.executor_task import ExecutorTaskLost, ExecutorTaskPhase, ExecutorTaskStarted
from runstream.objects import paths
from runstream.steplogs.log_index import LogIndexer, encode
from runstream.steplogs.log_state import CUT_OFF
from tests.executor.rig import rig, run_step, task_of


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
