"""A step that runs or is silent for too long is ended, with all its processes; later attempts at a task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStopRequested, ExecutorTaskTimedOut
from runstream.events.run_config import Step
from runstream.ids import attempt_id, run_task_id
from runstream.objects import paths
from tests.executor.rig import SETTINGS, Rig, Watched, rig, run_step, save_step, task_of
from tests.executor.test_life import FAMILY, appears, descendants
from tests.sandboxes import needs_sandbox

SECOND = 1_000_000_000
FAILED, STOPPED, NOT_STARTED = ExecutorTaskPhase.FAILED, ExecutorTaskPhase.STOPPED, ExecutorTaskPhase.NOT_STARTED
QUICKLY = replace(SETTINGS, stop_grace_seconds=0.3)


def short(command: str) -> Step:
    return run_step(command, step_timeout_interval=SECOND // 2)


@pytest.mark.parametrize("tty", [True, False])
async def test_a_step_that_takes_too_long_is_ended_with_its_family(tmp_path: Path, tty: bool) -> None:
    async with rig(tmp_path, settings=QUICKLY) as it:
        slow = structs.replace(run_step(FAMILY, tty=tty), step_timeout_interval=3 * SECOND // 2)
        task = await it.assign(task_of("task", run_step("true"), slow, run_step("true")))
        await appears(it.task_folder(task) / "home" / "ready")
        await task.settled()
        assert descendants(it.task_folder(task)) == []
        first, second, third = task.task.steps
        assert (first.phase, first.timedout) == (ExecutorTaskPhase.SUCCESS, "")
        assert (second.phase, second.timedout, second.exit_status) == (FAILED, "timeout", None)
        assert third.phase is NOT_STARTED
        assert (task.task.phase, task.task.timedout, task.task.failure) == (FAILED, True, "timeout")
        assert (await task.log(1)).splitlines()[-1] == "The step timed out after 1.5s."
        assert task.task.fail_error == "step 1 failed: timed out after 1.5s"


async def test_sigterm_comes_before_sigkill_for_a_step_too(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        task = await it.run(short("trap 'echo asked; exit 0' TERM; while :; do sleep 0.01; done"))
        assert (task.task.phase, task.task.steps[0].timedout) == (FAILED, "timeout")
        assert "asked" in await task.log()


async def test_a_step_that_is_silent_for_too_long_is_ended(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=QUICKLY) as it:
        task = await it.run(run_step("echo hello; sleep 1000", no_output_timeout=SECOND))
        (step,) = task.task.steps
        assert (step.phase, step.timedout, task.task.failure) == (FAILED, "no_output", "timeout")
        assert await task.log() == "hello\nThe step timed out after 1s without output.\n"


async def test_silence_counts_from_the_last_byte(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=QUICKLY) as it:
        talks = "for i in $(seq 25); do printf .; sleep 0.1; done"
        task = await it.run(run_step(talks, no_output_timeout=3 * SECOND // 2))
        assert task.task.phase is ExecutorTaskPhase.SUCCESS
        assert await task.log() == "." * 25


async def test_a_step_that_is_not_a_command_has_a_limit_too(tmp_path: Path) -> None:
    """Saving goes on in a thread until it sees that it is to end."""
    async with rig(tmp_path, settings=QUICKLY) as it:
        save = structs.replace(save_step("**"), step_timeout_interval=1)
        task = await it.run(run_step("for i in $(seq 2000); do echo $i > $i; done"), save)
        assert (task.task.steps[1].phase, task.task.steps[1].timedout) == (FAILED, "timeout")
        assert not await it.is_stored(paths.archive(task.run_task_id, 1))


async def test_the_first_reason_to_end_a_task_is_kept(tmp_path: Path) -> None:
    """A stop while a step that passed its limit is being ended; and a limit that is passed while a stop is obeyed."""
    stubborn = "trap '' TERM; echo ready > ~/ready; while :; do sleep 0.01; done"
    async with rig(tmp_path, settings=replace(SETTINGS, stop_grace_seconds=2.0)) as it:
        late = await it.assign(task_of("task", short(stubborn)))
        await late.until(lambda task: task.timedout)
        await late.say(ExecutorTaskStopRequested())
        await late.settled()
        assert (late.task.phase, late.task.steps[0].phase, late.task.stop) == (FAILED, FAILED, True)
        stopped = await it.assign(task_of("task", run_step(stubborn, step_timeout_interval=SECOND)))
        await appears(it.task_folder(stopped) / "home" / "ready")
        await stopped.say(ExecutorTaskStopRequested())
        await stopped.settled()
        assert (stopped.task.phase, stopped.task.timedout) == (STOPPED, False)


async def test_the_time_out_of_the_task_holds_beside_those_of_its_steps(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=QUICKLY) as it:
        patient = run_step("sleep 1000", step_timeout_interval=1000 * SECOND, no_output_timeout=1000 * SECOND)
        task = await it.assign(task_of("task", patient))
        await task.step_begun()
        await task.say(ExecutorTaskTimedOut())
        await task.settled()
        assert (task.task.failure, task.task.steps[0].timedout) == ("timeout", "")


@needs_sandbox
@pytest.mark.parametrize(
    ("event", "last", "error"),
    [
        (None, "The task timed out after 500ms.", "timed out after 500ms"),
        (ExecutorTaskTimedOut(), "The task timed out after 500ms.", "timed out after 500ms"),
        (ExecutorTaskStopRequested(), "The task was ended: it was asked to stop.", ""),
    ],
)
async def test_the_last_line_of_the_log_is_why_the_task_was_ended_and_not_how(
    tmp_path: Path, event: ExecutorTaskTimedOut | ExecutorTaskStopRequested | None, last: str, error: str
) -> None:
    """The end of a stubborn process is that of its sandbox."""
    async with rig(tmp_path, settings=replace(QUICKLY, sandbox="require")) as it:
        stubborn = run_step("trap '' TERM; echo hello; while :; do sleep 0.01; done")
        timeout = SECOND // 2 if event is None or isinstance(event, ExecutorTaskTimedOut) else 0
        task = await it.assign(task_of("task", stubborn), timeout=timeout)
        await task.step_begun()
        if event is not None:
            await task.say(event)
        await task.settled()
        assert await task.log() == f"hello\n{last}\n"
        assert (task.task.failure, task.task.fail_error) == ("timeout" if error else "", error)


async def test_a_stopped_executor_reports_its_unfinished_task(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        task = await it.assign(task_of("task", run_step("sleep 1000")))
        await task.step_begun()
        assert it.executor is not None
        await it.executor.stop()
        await task.ended()
        assert (task.task.phase, task.task.interrupted, task.task.failure) == (FAILED, True, "lost")


async def attempt(it: Rig, number: int, run_id: str) -> Watched:
    steps = (run_step("echo $RUNSTREAM_TASK_ATTEMPT $AGOLA_TASK_ATTEMPT | tee out"), save_step("out"))
    task = await it.assign(task_of("task", *steps), run_id=run_id, attempt=number)
    await task.settled()
    return task


async def test_each_attempt_has_its_number_its_logs_and_its_archives(tmp_path: Path) -> None:
    run_id = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
    async with rig(tmp_path) as it:
        for number in (1, 2):
            task = await attempt(it, number, run_id)
            assert await task.log() == f"{number} {number}\n"
            stored = attempt_id(run_task_id(run_id, "task"), number)
            assert await it.is_stored(paths.archive(stored, 1))
            assert await it.is_stored(paths.log_reference(stored, run_id))
            assert await it.is_stored(paths.archive_reference(stored, run_id))
        assert not await it.is_stored(paths.log_reference(attempt_id(run_task_id(run_id, "task"), 3), run_id))
