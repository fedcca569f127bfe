"""What is to be decided about a run now: its own events, then assignments and stop requests. Pure.

The events come first: assignments rest on them, so they are appended only once the events are in the log.

    what was not assigned and is not to be -> withdrawn -> the run is finished, or the retry dropped

A scheduler that lags may assign what by now is not to be run: no version of the run keeps it from that. So whoever
ends a task for good that it knows no executor task of takes its executor task's place in the log first. Either that is
refused, and the assignment comes back, or no assignment can follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from runstream.commits import Head, NewCommit
from runstream.domain import executor_task as executor_tasks
from runstream.domain.advance import advance, never_assigned, runs_always, tasks_to_run
from runstream.domain.executor import demand_of
from runstream.domain.executor_task import NOBODY, ExecutorTask
from runstream.domain.group import Place, decide_in_group
from runstream.domain.run import Run, RunTaskStatus, evolve
from runstream.events.event import Event
from runstream.events.executor_task import ExecutorTaskAssigned, ExecutorTaskCancelled
from runstream.events.run import RunEvent, RunFinished, RunNumbered, RunTaskRetryDropped
from runstream.events.run_config import RunConfig
from runstream.ids import commit_id, executor_task_id
from runstream.projections.fold import Tracked
from runstream.scheduler.lines import Ask
from runstream.subjects import Address, group_root

ACTOR = "scheduler"
_NOT_TO_RUN = frozenset({RunTaskStatus.SKIPPED, RunTaskStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What follows for one run."""

    run: Run
    """As it is once the events are in the log."""
    events: tuple[RunEvent, ...]
    runnable: tuple[str, ...]
    """Names of the tasks that are to be given to executors."""
    to_stop: tuple[str, ...]
    """Ids of the executor tasks that are to be asked to stop."""
    to_withdraw: tuple[str, ...] = ()
    """Names of the tasks whose next executor task is to be withdrawn: what follows of it waits for that."""

    def __bool__(self) -> bool:
        return bool(self.events or self.runnable or self.to_stop or self.to_withdraw)


def plan_run(
    run: Run, config: RunConfig, place: Place | None, tasks: Mapping[str, Tracked[ExecutorTask]], at: datetime
) -> RunPlan:
    """What follows from the run's state and from its place in its group; a run that has ended has none."""
    events: list[RunEvent] = []
    if not run.numbered:
        events.append(RunNumbered(run.counter, run.sequence))
    if place is not None:
        events.extend(decide_in_group(run, config.concurrency, place))
    for event in events:
        run = evolve(run, event, at)
    run, following, to_withdraw = _certain(run, config, at)
    to_stop = [
        task.executor_task_id
        for task in run.tasks.values()
        if task.executor_task_open
        and ((run.stop and not runs_always(config, task.name)) or run.finished or task.status in _NOT_TO_RUN)
        and executor_tasks.decide_stop(tasks[task.executor_task_id].state)
    ]
    runnable = (name for name in tasks_to_run(run, config, at) if name not in to_withdraw)
    return RunPlan(run, (*events, *following), tuple(runnable), tuple(to_stop), tuple(to_withdraw))


def _certain(run: Run, config: RunConfig, at: datetime) -> tuple[Run, list[RunEvent], list[str]]:
    """The run after all that follows up to what waits for withdrawals; what follows; the tasks of those withdrawals."""
    following = advance(run, config, at)[1]
    certain: list[RunEvent] = []
    for event in following:
        match event:
            case RunTaskRetryDropped(task) if not run.tasks[task].withdrawn:
                unsure = [task]
            case RunFinished():
                unsure = never_assigned(run, config)
            case _:
                unsure = []
        if unsure:
            return run, certain, unsure
        run = evolve(run, event, at)
        certain.append(event)
    return run, certain, []


def ask_for(run: Run, name: str, config: RunConfig, partition: int, tasks: Mapping[str, Tracked[ExecutorTask]]) -> Ask:
    """What this task of the run wants of an executor, and what says whose turn it is."""
    task, state = config.tasks[name], run.tasks[name]
    return Ask(
        id=executor_task_id(run.id, state.id, state.attempt),
        partition=partition,
        run_id=run.id,
        task=name,
        root=group_root(run.group),
        priority=run.priority,
        sequence=run.sequence,
        level=task.level,
        demand=demand_of(task.runtime),
        failed_at=tuple(
            tasks[attempt.executor_task_id].state.executor_id
            for attempt in state.attempts
            if attempt.executor_task_id in tasks
        ),
    )


def assignment(
    run: Run,
    ask: Ask,
    config: RunConfig,
    executor_id: str,
    workspaces: Mapping[str, str],
    at: datetime,
    *,
    cause: str,
    trace: str,
) -> NewCommit:
    """The first commit of the executor task for the task that asked; `workspaces` as `Workspaces` finds them."""
    address = Address(ask.partition, "task", ask.id, executor_id)
    return decided(
        Head(), address, (_assigned(run, ask, config, executor_id, workspaces),), at, cause=cause, trace=trace
    )


def withdrawal(run: Run, ask: Ask, config: RunConfig, at: datetime, *, cause: str, trace: str) -> NewCommit:
    """The first and only commit of an executor task that nobody is to be given."""
    events = (_assigned(run, ask, config, NOBODY, {}), ExecutorTaskCancelled(at))
    return decided(Head(), Address(ask.partition, "task", ask.id, NOBODY), events, at, cause=cause, trace=trace)


def _assigned(
    run: Run, ask: Ask, config: RunConfig, executor_id: str, workspaces: Mapping[str, str]
) -> ExecutorTaskAssigned:
    name, task = ask.task, config.tasks[ask.task]
    run_task, attempt = run.tasks[name].id, run.tasks[name].attempt
    return ExecutorTaskAssigned(
        executor_id=executor_id,
        run_id=run.id,
        run_task_id=run_task,
        task=name,
        run_config=run.run_config,
        group=run.group,
        counter=run.counter,
        steps=len(task.steps),
        timeout=task.task_timeout_interval,
        attempt=attempt,
        workspaces=dict(workspaces),
    )


def decided(
    head: Head, address: Address, events: Sequence[Event], at: datetime, *, cause: str, trace: str
) -> NewCommit:
    """The commit of a decision. Made again it has the same id; one that says something else has another."""
    identity = commit_id(cause, address.aggregate, head.version + 1, repr(events))
    return head.next_commit(address, events, time=at, actor=ACTOR, cause=cause, trace=trace, identity=identity)
