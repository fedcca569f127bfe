"""A scheduler on real servers: runs end, groups are kept, losses and timeouts are noticed."""

from __future__ import annotations

from datetime import UTC, datetime

from runstream.commits import Head, Position
from runstream.database.runs import list_executors
from runstream.domain.executor import ExecutorState
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import RunTaskStatus
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import Depend
from runstream.projections.fold import Tracked
from runstream.run_states import RunPhase, RunResult
from runstream.subjects import Address, partition_of
from tests.domain.world import config, task
from tests.factories import executor_registered
from tests.servers import Servers

from .standing import FakeExecutor, running, standing

CHAIN = config(
    task("a"), task("b", Depend("a", ("on_success",)), level=1), task("c", Depend("b", ("on_success",)), level=2)
)


async def test_runs_end(servers: Servers) -> None:
    async with standing(servers) as around:
        executor = FakeExecutor(around, "e1", limit=2)
        async with running(await around.scheduler()), executor.alive():
            groups = [f"/project/p{n % 3}/branch/main" for n in range(12)]
            runs = [await around.create(CHAIN, group) for group in groups]
            folds = await around.ended(*runs)
            states = [folds[run].runs[run].state for run in runs]
        assert {state.result for state in states} == {RunResult.SUCCESS}
        assert sorted(state.counter for state in states) == sorted([1, 2, 3, 4] * 3)
        assert len(executor.taken) == len(set(executor.taken)) == 36


async def test_a_project_with_little_does_not_wait_for_one_with_much_in_another_partition(servers: Servers) -> None:
    async with standing(servers) as around:
        big = "/project/big"
        other = next(root for root in map("/project/small{}".format, range(99)) if partition(root) != partition(big))
        one = config(task("a"))
        async with running(await around.scheduler()):
            runs = [await around.create(one, f"{big}/branch/b{n}") for n in range(12)]
            runs.append(await around.create(one, f"{other}/branch/main"))
            for run in runs:
                await around.folded_until(
                    around.runs[run],
                    lambda fold, run=run: run in fold.runs and fold.runs[run].state.phase is RunPhase.RUNNING,  # type: ignore[misc]
                )
            executor = FakeExecutor(around, "e1", limit=1)
            async with executor.alive():
                folds = await around.ended(*runs)
        (small,) = (t.id for t in folds[runs[-1]].runs[runs[-1]].state.tasks.values())
        small_task = next(
            t.id for t in map(state_of, folds[runs[-1]].executor_tasks.values()) if t.run_task_id == small
        )
        assert executor.taken.index(small_task) < 4


def partition(root: str) -> int:
    return partition_of(root, 2)


def state_of(tracked: Tracked[ExecutorTask]) -> ExecutorTask:
    return tracked.state


async def test_a_failed_task_skips_what_depends_on_its_success(servers: Servers) -> None:
    async with standing(servers) as around:
        executor = FakeExecutor(around, "e1", outcome=lambda _task: ExecutorTaskPhase.FAILED)
        async with running(await around.scheduler()), executor.alive():
            run = await around.create(CHAIN)
            state = (await around.ended(run))[run].runs[run].state
        assert state.result is RunResult.FAILED
        assert [state.tasks[name].status for name in "abc"] == [
            RunTaskStatus.FAILED,
            RunTaskStatus.SKIPPED,
            RunTaskStatus.SKIPPED,
        ]


async def test_the_tasks_of_a_lost_executor_fail_with_end_times(servers: Servers) -> None:
    async with standing(servers) as around:
        executor = FakeExecutor(around, "e1", outcome=lambda _task: ExecutorTaskPhase.RUNNING)
        async with running(await around.scheduler()):
            async with executor.alive():
                run = await around.create(CHAIN)
                partition = around.runs[run]
                await around.folded_until(
                    partition,
                    lambda fold: run in fold.runs and fold.runs[run].state.tasks["a"].status is RunTaskStatus.RUNNING,
                )
            fold = (await around.ended(run))[run]
        (lost,) = (tracked.state for tracked in fold.executor_tasks.values())
        assert lost.lost
        assert lost.end_time is not None
        assert lost.setup_step.end_time is not None
        assert fold.runs[run].state.result is RunResult.FAILED


async def test_an_executor_that_was_stopped_while_no_scheduler_ran_is_offline_and_not_lost(servers: Servers) -> None:
    async with standing(servers) as around:
        address = Address(partition("e1"), "executor", "e1")
        registered = executor_registered("e1", archs=(), active_tasks_limit=1)
        await around.log.append(Head().next_commit(address, (registered,), time=datetime.now(UTC), actor="e1"))
        async with FakeExecutor(around, "e1").alive():
            pass
        async with running(around.freshness), running(await around.scheduler(grace=0.05)):
            fold = await around.folded_until(
                address.partition,
                lambda fold: any(e.state.state is not ExecutorState.REGISTERED for e in fold.executors.values()),
            )
            stopped = fold.executors["e1"]
            assert stopped.state.state is ExecutorState.OFFLINE
            await around.freshness.wait_for(
                Position(around.log.epoch, address.partition, stopped.head.sequence), timeout=10
            )
            async with around.database.snapshot() as transaction:
                (listed,) = await list_executors(transaction)
    assert listed.executor == stopped.state


async def test_a_time_out_reaches_the_task(servers: Servers) -> None:
    slow = config(task("a", task_timeout_interval=1_000_000_000))
    async with standing(servers) as around:
        executor = FakeExecutor(around, "e1", outcome=lambda _task: ExecutorTaskPhase.RUNNING)
        executor.setup_only = True
        async with running(await around.scheduler()), executor.alive():
            run = await around.create(slow)
            await around.folded_until(
                around.runs[run], lambda fold: any(t.state.timedout for t in fold.executor_tasks.values())
            )


async def test_a_scheduler_takes_over_where_another_ended(servers: Servers) -> None:
    async with standing(servers) as around:
        async with FakeExecutor(around, "e1").alive():
            async with running(await around.scheduler()):
                first = await around.create(CHAIN)
                await around.ended(first)
            second = await around.create(CHAIN)
            async with running(await around.scheduler()):
                state = (await around.ended(second))[second].runs[second].state
        assert state.phase is RunPhase.FINISHED
        assert state.counter == 2
