"""The decisions of one partition, kept from what came back through its feed. Pure: no I/O, no clock.

Every decision rests on a state that holds all earlier ones: a run is not decided again while an append of it is in
flight, or accepted but not yet back through the feed. In each group the first run that has not ended runs next. Runs
are in the order of the log, so two schedulers that have read different lengths of it never start two. The id of a
decision's commit says what was decided: made again it is the same commit, and two that differ never pass for one.

A run's own events come first. Assignments and stop requests rest on them, so they are appended only once those are in
the log. A task that ends without an assignment is withdrawn before the run is finished, or its retry dropped:

    to be ended, never assigned -> withdrawn -> the run is finished, or the retry dropped

The version of the run does not stop a scheduler that lags from assigning such a task. So a withdrawal takes the place
of the executor task in the log. Either the log refuses it, and the assignment comes back through the feed, or no
assignment can follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from msgspec import Struct

from runstream.commits import Head, NewCommit
from runstream.domain.advance import advance, never_assigned, runs_always, tasks_to_run
from runstream.domain.clocks import next_due
from runstream.domain.executor import ExecutorState, demand_of
from runstream.domain.executor_task import NOBODY, ExecutorTask, decide_lost, decide_stop
from runstream.domain.group import Place, decide_in_group
from runstream.domain.run import RunState, RunTaskStatus, evolve
from runstream.domain.why import Explanation
from runstream.events.event import DomainEvent
from runstream.events.executor import ExecutorLost
from runstream.events.executor_task import ExecutorTaskAssigned, ExecutorTaskCancelled, ExecutorTaskLost
from runstream.events.run import RunEvent, RunFinished, RunNumbered, RunTaskRetryDropped
from runstream.events.run_config import RunConfig
from runstream.ids import attempt_id, commit_id, executor_task_id
from runstream.projections.fold import Changed, Changes, PartitionFold, Tracked
from runstream.scheduler.fair_queue import FairQueue, PendingTask, PriorityMap
from runstream.scheduler.groups import Groups
from runstream.scheduler.why import explain_run
from runstream.subjects import Address, group_root

ACTOR = "scheduler"
_IN_FLIGHT = -1
_NOT_TO_RUN = frozenset({RunTaskStatus.SKIPPED, RunTaskStatus.CANCELLED})
logger = structlog.get_logger(__name__)


class RunPlan(Struct, frozen=True, gc=False):
    """The consequences of a run's state."""

    run: RunState
    """The run once the events are in the log."""
    events: tuple[RunEvent, ...]
    runnable: tuple[str, ...]
    """Names of the tasks to assign to executors."""
    to_stop: tuple[str, ...]
    """Ids of the executor tasks to ask to stop."""
    to_withdraw: tuple[str, ...] = ()
    """Names of the tasks whose next executor task to withdraw; further events wait for that."""

    def __bool__(self) -> bool:
        return bool(self.events or self.runnable or self.to_stop or self.to_withdraw)


def plan_run(
    run: RunState, config: RunConfig, place: Place | None, tasks: Mapping[str, Tracked[ExecutorTask]], at: datetime
) -> RunPlan:
    """Return the consequences of the run's state and its place in its group; a run that has ended has no place."""
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
        and decide_stop(tasks[task.executor_task_id].state)
    ]
    runnable = (name for name in tasks_to_run(run, config, at) if name not in to_withdraw)
    return RunPlan(run, (*events, *following), tuple(runnable), tuple(to_stop), tuple(to_withdraw))


def _certain(run: RunState, config: RunConfig, at: datetime) -> tuple[RunState, list[RunEvent], list[str]]:
    """Return the run after all events that wait for no withdrawal, these events, and the tasks to withdraw."""
    advanced, following = advance(run, config, at)
    if not any(isinstance(event, RunTaskRetryDropped | RunFinished) for event in following):
        return advanced, following, []
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


def _assigned(
    run: RunState, task: PendingTask, config: RunConfig, executor_id: str, workspaces: Mapping[str, str]
) -> ExecutorTaskAssigned:
    content = config.tasks[task.task]
    return ExecutorTaskAssigned(
        executor_id=executor_id,
        run_id=run.id,
        run_task_id=run.tasks[task.task].id,
        task=task.task,
        run_config=run.run_config,
        group=run.group,
        counter=run.counter,
        steps=len(content.steps),
        timeout=content.task_timeout_interval,
        attempt=run.tasks[task.task].attempt,
        workspaces=dict(workspaces),
    )


def _decided(
    head: Head, address: Address, events: Sequence[DomainEvent], at: datetime, *, cause: str, trace: str
) -> NewCommit:
    """Return the commit of a decision, with an id that is derived from what was decided."""
    identity = commit_id(cause, address.aggregate, head.version + 1, repr(events))
    return head.next_commit(address, events, time=at, actor=ACTOR, cause=cause, trace=trace, identity=identity)


class WorkspaceArchives:
    """The ids of a run's workspace archives that differ from what the run's id gives.

    Those are archives of later attempts, and of tasks taken over from an earlier run. For all tasks of a run together
    the cost is one step for each task and each dependency.
    """

    def __init__(self, run: RunState, config: RunConfig) -> None:
        self._config = config
        moved = (task for task in run.tasks.values() if task.archive_steps and (task.attempt > 1 or task.kept))
        self._moved = [(task.name, attempt_id(task.id, task.attempt)) for task in moved]
        self._bits = {name: 1 << number for number, (name, _) in enumerate(self._moved)}
        self._above: dict[str, int] = {}
        """Bits of the ancestors of each visited task."""

    def of(self, name: str) -> dict[str, str]:
        """Return the task's ancestors whose archives have other ids, with these ids."""
        if not self._moved:
            return {}
        mask = self._mask(name)
        return dict(moved for number, moved in enumerate(self._moved) if mask >> number & 1)

    def _mask(self, name: str) -> int:
        """Return the bits of the ancestors; those of the parents are found first."""
        waiting = [name]
        while name not in self._above:
            one = waiting[-1]
            if one in self._above:
                waiting.pop()
                continue
            parents = [depend.task for depend in self._config.tasks[one].depends if depend.task in self._config.tasks]
            unknown = [parent for parent in parents if parent not in self._above]
            if unknown:
                waiting += unknown
                continue
            mask = 0
            for parent in parents:
                mask |= self._above[parent] | self._bits.get(parent, 0)
            self._above[one] = mask
            waiting.pop()
        return self._above[name]


class RunTimers:
    """The times at which runs are decided again because time has passed, such as the end of a wait before an attempt.

    They are in memory only, and made anew from the state of the runs whenever that is loaded.
    """

    def __init__(self) -> None:
        self._times: PriorityMap[datetime] = PriorityMap()

    def set(self, run_id: str, at: datetime | None) -> None:
        """Replace the run's timer; None removes it."""
        self._times.set(run_id, at)

    def take(self, at: datetime) -> list[str]:
        """Remove the timers that are due, and return their runs."""
        due = []
        while (first := self._times.first) is not None and first[0] <= at:
            self._times.set(first[1], None)
            due.append(first[1])
        return due

    @property
    def first(self) -> datetime | None:
        """The earliest time; None without timers."""
        first = self._times.first
        return None if first is None else first[0]


class Decision(Struct, frozen=True, gc=False):
    """One run's plan, and the commit of its own events if it has any."""

    run_id: str
    plan: RunPlan
    pending: tuple[PendingTask, ...]
    """The tasks that need a slot."""
    commit: NewCommit | None
    cause: str
    trace: str


class Cause(Struct, frozen=True, gc=False):
    """The commit that touched a run last, and its trace."""

    commit_id: str
    trace: str


@dataclass(slots=True)
class Decider:
    """The runs of one partition to decide, and their decisions."""

    fold: PartitionFold
    _queue: FairQueue
    _gone: Callable[[str], str | None]
    """Returns why the executor with this id is lost; None while it may be alive."""
    _loss: Callable[[str], ExecutorLost] = lambda _: ExecutorLost()
    """Returns the event that declares the executor with this id lost."""
    _groups: Groups = field(default_factory=Groups)
    _dirty: dict[str, None] = field(default_factory=dict)
    """The runs to decide, in order."""
    _timers: RunTimers = field(default_factory=RunTimers)
    _busy: dict[str, int] = field(default_factory=dict)
    """By run: the sequence that has to come back before it is decided again, or `_IN_FLIGHT`."""
    _causes: dict[str, Cause] = field(default_factory=dict)
    _tasks_of: dict[str, set[str]] = field(default_factory=dict)
    """By executor: its tasks that are not settled."""
    _lost: dict[str, str] = field(default_factory=dict)
    """Reason of each task to declare lost."""
    _lost_executors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for tracked in sorted(self.fold.runs.values(), key=lambda t: t.state.sequence):
            self._observe_run(tracked.state)
        for task in self.fold.executor_tasks.values():
            self._observe_task(task.state)
        for executor in self.fold.executors.values():
            # One that was lost while no scheduler worked is found even when it has no task.
            if executor.state.state is ExecutorState.REGISTERED and self._gone(executor.state.id):
                self._lost_executors.add(executor.state.id)

    def observe(self, changes: Changes, causes: dict[str, Cause]) -> None:
        """Apply the changes of a batch; `causes` has for each run the commit that touched it last."""
        self._causes.update(causes)
        for changed_task in changes.executor_tasks.values():
            self._observe_task(changed_task.now.state)
        runs: list[Changed[RunState]] = sorted(changes.runs.values(), key=lambda changed: changed.now.state.sequence)
        for changed in runs:
            self._observe_run(changed.now.state)
        for run_id in [run for run, sequence in self._busy.items() if _IN_FLIGHT < sequence <= self.fold.after]:
            del self._busy[run_id]

    def _observe_run(self, run: RunState) -> None:
        if run.finished:
            touched = self._groups.left(run)
        else:
            touched = self._groups.joined(run, self.fold.configs[run.run_config].concurrency)
        self._dirty.update(dict.fromkeys(touched))
        self._timers.set(run.id, self._next_due(run))
        if run.archived:
            self._dirty.pop(run.id, None)
        else:
            self._dirty[run.id] = None

    def _next_due(self, run: RunState) -> datetime | None:
        try:
            return None if run.finished else next_due(run, self.fold.configs[run.run_config])
        except OverflowError:  # later than the last datetime
            return None

    def _observe_task(self, task: ExecutorTask) -> None:
        if task.open:
            self._queue.opened(self.fold.partition, task.id, task.executor_id, group_root(task.group))
        else:
            self._queue.closed(self.fold.partition, task.id)
        tasks = self._tasks_of.setdefault(task.executor_id, set())
        if task.settled:
            tasks.discard(task.id)
            self._lost.pop(task.id, None)
        else:
            tasks.add(task.id)
            if reason := self._gone(task.executor_id):
                self._lost[task.id] = reason
        if not tasks:
            del self._tasks_of[task.executor_id]

    def slot_reserved(self, run_id: str) -> None:
        """Decide the run again: a slot is reserved for one of its pending tasks."""
        self._dirty[run_id] = None

    def executor_gone(self, executor_id: str, reason: str) -> None:
        """Declare the executor lost with its tasks: open ones fail, and nothing more of ended ones is stored."""
        for task_id in self._tasks_of.get(executor_id, ()):
            self._lost[task_id] = reason
        known = self.fold.executors.get(executor_id)
        if known is not None and known.state.state is ExecutorState.REGISTERED:
            self._lost_executors.add(executor_id)

    def decisions(self, at: datetime) -> list[Decision]:
        """Return the decisions to append now; hand each back to `settle`, or to `done` or `failed`."""
        made = []
        self._dirty.update(dict.fromkeys(self._timers.take(at)))
        for run_id in [run for run in self._dirty if run not in self._busy]:
            del self._dirty[run_id]
            try:
                decision = self._decide(run_id, at)
            except Exception:  # a run that cannot be decided stops no other run; its next commit tries again
                logger.exception("A run cannot be decided", action="run_undecided", run=run_id)
                continue
            if decision is not None:
                # Until its commits have come back, the state lacks them: another decision would rest on the old one.
                self._busy[run_id] = _IN_FLIGHT
                made.append(decision)
        return made

    @property
    def next_due(self) -> datetime | None:
        """Time at which the next run is due; None for never."""
        return self._timers.first

    def _decide(self, run_id: str, at: datetime) -> Decision | None:
        tracked = self.fold.runs.get(run_id)
        if tracked is None:
            self._queue.retain(self.fold.partition, run_id, ())
            return None
        run = tracked.state
        config = self.fold.configs[run.run_config]
        place = None if run.finished else self._groups.place(run, config.concurrency)
        plan = plan_run(run, config, place, self.fold.executor_tasks, at)
        pending = tuple(self._pending(plan.run, name, config) for name in plan.runnable)
        self._queue.retain(self.fold.partition, run_id, {task.id for task in pending})
        # A run whose tasks all wait for slots costs nothing more until one is reserved for it.
        if not plan.events and not plan.to_stop and not plan.to_withdraw and all(map(self._queue.is_pending, pending)):
            return None
        cause = self._causes.get(run_id, Cause(f"{run_id}@{tracked.head.version}", ""))
        commit = None
        if plan.events:
            address = Address(self.fold.partition, "run", run_id)
            commit = _decided(tracked.head, address, plan.events, at, cause=cause.commit_id, trace=cause.trace)
        return Decision(run_id, plan, pending, commit, cause.commit_id, cause.trace)

    def _pending(self, run: RunState, name: str, config: RunConfig) -> PendingTask:
        """Return the run's task as an entry of the fair queue."""
        task, state, assigned = config.tasks[name], run.tasks[name], self.fold.executor_tasks
        return PendingTask(
            id=executor_task_id(run.id, state.id, state.attempt),
            partition=self.fold.partition,
            run_id=run.id,
            task=name,
            root=group_root(run.group),
            priority=run.priority,
            sequence=run.sequence,
            level=task.level,
            demand=demand_of(task.runtime),
            failed_at=tuple(
                assigned[attempt.executor_task_id].state.executor_id
                for attempt in state.attempts
                if attempt.executor_task_id in assigned
            ),
        )

    def follow_ups(self, decisions: Sequence[Decision], at: datetime) -> list[list[NewCommit]]:
        """Return for each decision the commits that rest on its own events, once these are in the log.

        There are none for a run that is archived and forgotten, and no assignment of a task that is assigned already. A
        scheduler that reads the log again, as after a restore, makes the same decisions, and their outcome may come
        back through the feed before it gets here.
        """
        runs, assigned = self.fold.runs, self.fold.executor_tasks
        pending = (task for decision in decisions for task in decision.pending)
        self._queue.enqueue([task for task in pending if task.run_id in runs and task.id not in assigned])
        kinds = (self._stops, self._withdrawals, self._assignments)
        return [
            [commit for kind in kinds for commit in kind(decision, at)] if decision.run_id in runs else []
            for decision in decisions
        ]

    def _assignments(self, decision: Decision, at: datetime) -> Iterator[NewCommit]:
        run = decision.plan.run
        config = self.fold.configs[run.run_config]
        archives = WorkspaceArchives(run, config)
        for task in decision.pending:
            if (executor_id := self._queue.take(task)) is not None:
                event = _assigned(run, task, config, executor_id, archives.of(task.task))
                address = Address(task.partition, "task", task.id, executor_id)
                yield _decided(Head(), address, (event,), at, cause=decision.cause, trace=decision.trace)

    def _withdrawals(self, decision: Decision, at: datetime) -> Iterator[NewCommit]:
        """Yield the first and only commit of each executor task that no executor gets."""
        run = decision.plan.run
        config = self.fold.configs[run.run_config]
        for name in decision.plan.to_withdraw:
            task = self._pending(run, name, config)
            events = (_assigned(run, task, config, NOBODY, {}), ExecutorTaskCancelled(at))
            address = Address(task.partition, "task", task.id, NOBODY)
            yield _decided(Head(), address, events, at, cause=decision.cause, trace=decision.trace)

    def _stops(self, decision: Decision, at: datetime) -> Iterator[NewCommit]:
        """Yield the decision's requests to stop, without those for tasks that have ended since."""
        for task_id in decision.plan.to_stop:
            tracked = self.fold.executor_tasks[task_id]
            if events := decide_stop(tracked.state):
                address = Address(self.fold.partition, "task", task_id, tracked.state.executor_id)
                yield tracked.head.next_commit(
                    address, events, time=at, actor=ACTOR, cause=decision.cause, trace=decision.trace
                )

    def done(self, decision: Decision, last_sequence: int) -> None:
        """Decide the run again once its commits are back up to this sequence; 0 when none was accepted."""
        if last_sequence > self.fold.after:
            self._busy[decision.run_id] = last_sequence
        else:
            self._busy.pop(decision.run_id, None)

    def accepted(self, commit: NewCommit, sequence: int) -> None:
        """Record that the log has the commit at this sequence; the feed may have brought it back already."""
        if sequence <= self.fold.after:
            self._count_as_known(commit.address)

    def refused(self, commit: NewCommit) -> None:
        """Record that another decision won; it has come back through the feed, or will."""
        self._count_as_known(commit.address)

    def _count_as_known(self, address: Address) -> None:
        """Count the task's slot by the task's state in the log, not by the decision made here."""
        if address.kind != "task":
            return
        tracked = self.fold.executor_tasks.get(address.id)
        if tracked is not None:
            self._observe_task(tracked.state)
        else:
            self._queue.refused(self.fold.partition, address.id, address.executor_id)

    def failed(self, decision: Decision) -> None:
        """Decide the run again: the log could not be reached."""
        self._busy.pop(decision.run_id, None)
        self._dirty[decision.run_id] = None

    @property
    def has_losses(self) -> bool:
        """True if there are executors or tasks to declare lost."""
        return bool(self._lost or self._lost_executors)

    def losses(self, at: datetime) -> Iterator[NewCommit]:
        """Yield the commits that declare executors and their tasks lost; each once, unless given to `still_lost`."""
        executors, self._lost_executors = self._lost_executors, set()
        for executor_id in executors:
            head = self.fold.executors[executor_id].head
            address = Address(self.fold.partition, "executor", executor_id)
            event = self._loss(executor_id)
            yield head.next_commit(address, (event,), time=at, actor=ACTOR, cause=f"lost:{executor_id}")
        lost, self._lost = self._lost, {}
        for task_id, reason in lost.items():
            tracked = self.fold.executor_tasks.get(task_id)
            if tracked is None or not (events := decide_lost(tracked.state, at, reason)):
                continue
            executor_id = tracked.state.executor_id
            address = Address(self.fold.partition, "task", task_id, executor_id)
            trace = known.trace if (known := self._causes.get(tracked.state.run_id)) is not None else ""
            yield tracked.head.next_commit(
                address, events, time=at, actor=ACTOR, cause=f"lost:{executor_id}", trace=trace
            )

    def still_lost(self, commit: NewCommit) -> None:
        """Yield this loss with the next ones again: the log could not be reached."""
        for event in commit.events:
            if isinstance(event, ExecutorTaskLost):
                self._lost[commit.address.id] = event.error
            elif isinstance(event, ExecutorLost):
                self._lost_executors.add(commit.address.id)

    def why(self, run_id: str, at: datetime) -> Explanation | None:
        """Return why the run waits at this time; None when it is not in memory."""
        tracked = self.fold.runs.get(run_id)
        if tracked is None:
            return None
        run, config = tracked.state, self.fold.configs[tracked.state.run_config]
        pending = [] if run.finished else [self._pending(run, name, config) for name in tasks_to_run(run, config, at)]
        return explain_run(run, self.fold, self._groups, self._queue, pending, at)

    def forget(self, run_id: str) -> None:
        """Forget a run that is archived and projected."""
        self._causes.pop(run_id, None)
        self._busy.pop(run_id, None)
        self._queue.retain(self.fold.partition, run_id, ())
