"""Retries and timeouts of runs on real servers: waits outlive schedulers, and what was lost goes on elsewhere."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from runstream.domain.run import RunTaskStatus
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import Depend, Retry
from runstream.ids import executor_task_id, run_task_id
from runstream.run_states import RunResult
from tests.domain.world import SECOND, config, task
from tests.servers import Servers

from .standing import FakeExecutor, Outcome, running, standing

ALWAYS = Retry(2, 0, ("failure", "lost", "timeout"))
SLOWLY = Retry(1, 2 * SECOND, ("failure",))


def fails_until(attempt: int) -> Outcome:
    return lambda one: ExecutorTaskPhase.SUCCESS if one.attempt >= attempt else ExecutorTaskPhase.FAILED


async def test_a_task_is_tried_again_until_it_succeeds(servers: Servers) -> None:
    content = config(task("a", retry=ALWAYS), task("b", Depend("a", ("on_success",)), level=1))
    async with standing(servers) as around:
        executor = FakeExecutor(around, "e1", outcome=lambda t: fails_until(3 if t.task == "a" else 1)(t))
        async with running(await around.scheduler()), executor.alive():
            run = await around.create(content)
            state = (await around.ended(run))[run].runs[run].state
    assert state.result is RunResult.SUCCESS
    assert [attempt.reason for attempt in state.tasks["a"].attempts] == ["failure", "failure"]
    ids = [executor_task_id(run, run_task_id(run, "a"), number) for number in (1, 2, 3)]
    assert executor.taken == [*ids, executor_task_id(run, run_task_id(run, "b"))]


async def test_each_attempt_goes_where_fewer_attempts_failed(servers: Servers) -> None:
    async with standing(servers) as around:
        first, second = [FakeExecutor(around, name, outcome=fails_until(3)) for name in ("e1", "e2")]
        async with running(await around.scheduler()), first.alive(), second.alive():
            # Both are known: each of two tasks is at one of them.
            await around.ended(await around.create(config(task("a"), task("b"))))
            run = await around.create(config(task("a", retry=ALWAYS)), "/project/p/branch/again")
            fold = (await around.ended(run))[run]
    state = fold.runs[run].state.tasks["a"]
    where = [fold.executor_tasks[key].state.executor_id for key in state.executions]
    assert (state.status, where) == (RunTaskStatus.SUCCESS, ["e1", "e2", "e1"])


async def test_a_wait_outlives_the_scheduler_that_began_it(servers: Servers) -> None:
    async with (
        standing(servers) as around,
        FakeExecutor(around, "e1", outcome=fails_until(2)).alive(),
    ):
        async with running(await around.scheduler()):
            run = await around.create(config(task("a", retry=SLOWLY)))
            await around.folded_until(
                around.runs[run],
                lambda fold: run in fold.runs and fold.runs[run].state.tasks["a"].between_attempts,
            )
        async with running(await around.scheduler()):
            one = (await around.ended(run))[run].runs[run].state.tasks["a"]
    assert (one.status, one.attempt) == (RunTaskStatus.SUCCESS, 2)
    (first,) = one.attempts
    assert first.end_time is not None
    assert one.start_time is not None
    assert one.not_before is not None
    assert first.end_time + timedelta(seconds=2) <= one.not_before <= one.start_time


async def test_a_task_whose_executor_is_gone_goes_on_elsewhere(servers: Servers) -> None:
    content = config(task("a", retry=Retry(1, 0, ("lost",))))
    async with (
        standing(servers) as around,
        running(await around.scheduler()),
    ):
        async with FakeExecutor(around, "e1", outcome=lambda _task: ExecutorTaskPhase.RUNNING).alive():
            run = await around.create(content)
            await around.folded_until(
                around.runs[run],
                lambda fold: run in fold.runs and fold.runs[run].state.tasks["a"].status is RunTaskStatus.RUNNING,
            )
        other = FakeExecutor(around, "e2")
        async with other.alive():
            fold = (await around.ended(run))[run]
    state = fold.runs[run].state
    assert state.result is RunResult.SUCCESS
    assert [attempt.reason for attempt in state.tasks["a"].attempts] == ["lost"]
    assert other.taken == [executor_task_id(run, run_task_id(run, "a"), 2)]


async def test_a_run_times_out_although_its_scheduler_has_changed(servers: Servers) -> None:
    content = replace(
        config(task("a"), task("b", Depend("a", ("on_success",)), level=1)), run_timeout_interval=2 * SECOND
    )
    async with standing(servers) as around:
        executor = FakeExecutor(around, "e1", outcome=lambda _task: ExecutorTaskPhase.RUNNING)
        async with executor.alive():
            async with running(await around.scheduler()):
                run = await around.create(content)
                await around.folded_until(
                    around.runs[run],
                    lambda fold: run in fold.runs and fold.runs[run].state.tasks["a"].status is RunTaskStatus.RUNNING,
                )
            async with running(await around.scheduler()):
                fold = await around.folded_until(
                    around.runs[run], lambda fold: any(t.state.stop for t in fold.executor_tasks.values())
                )
    state = fold.runs[run].state
    assert state.timedout
    assert state.result is RunResult.FAILED
    assert state.tasks["b"].status is RunTaskStatus.SKIPPED
