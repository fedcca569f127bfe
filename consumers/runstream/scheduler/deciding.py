"""What a partition's scheduler has to decide, kept from what came back through its feed. Pure: no I/O, no clock.

A run of which an append is in flight, or accepted but not yet come back, is not decided again: every decision
rests on a state that holds all earlier ones. In each group the first run that has not ended is the next to
run; since runs are in the order of the log, two schedulers that see different lengths of it never start two. The
id of a decision says what was decided: two that differ are never taken for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from runstream.commits import NewCommit
from runstream.domain.clocks import next_due
from runstream.domain.executor import ExecutorState
from runstream.domain.executor_task import ExecutorTask, decide_lost, decide_stop
from runstream.domain.run import Run
from runstream.domain.why import Explanation
from runstream.events.executor import ExecutorLost
from runstream.events.executor_task import ExecutorTaskEvent, ExecutorTaskLost
from runstream.projections.fold import Changed, Changes, PartitionFold, Tracked
from runstream.scheduler.explaining import explanation
from runstream.scheduler.groups import Groups
from runstream.scheduler.lines import Ask
from runstream.scheduler.planning import ACTOR, RunPlan, ask_for, assignment, decided, plan_run, withdrawal
from runstream.scheduler.turns import Turns
from runstream.scheduler.wakes import Wakes
from runstream.scheduler.workspaces import Workspaces
from runstream.subjects import Address, group_root

_IN_FLIGHT = -1
logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Decision:
    """One run's plan, and the commit of its own events if there are any."""

    run_id: str
    plan: RunPlan
    asks: tuple[Ask, ...]
    """For the tasks that can be given to executors."""
    commit: NewCommit | None
    cause: str
    trace: str


@dataclass(frozen=True, slots=True)
class Cause:
    """The commit that touched a run last, and the trace it carried."""

    commit_id: str
    trace: str


class Decider:
    """Keeps what is due in one partition."""

    def __init__(
        self,
        fold: PartitionFold,
        turns: Turns,
        gone: Callable[[str], str | None],
        last_seen: Callable[[str], datetime | None] = lambda _: None,
    ) -> None:
        """`gone(executor id)` says why an executor is to be given up, or None while it may be alive.

        `last_seen(executor id)` says when it was heard of last.
        """
        self.fold = fold
        self._turns = turns
        self._gone = gone
        self._last_seen = last_seen
        self._groups = Groups()
        self._dirty: dict[str, None] = {}
        self._wakes = Wakes()
        self._busy: dict[str, int] = {}
        self._causes: dict[str, Cause] = {}
        self._tasks_of: dict[str, set[str]] = {}
        self._lost: dict[str, str] = {}
        self._lost_executors: set[str] = set()
        for tracked in sorted(fold.runs.values(), key=lambda t: t.state.sequence):
            self._observe_run(tracked.state)
        for task in fold.executor_tasks.values():
            self._observe_task(task.state)
        for executor in fold.executors.values():
            # One that went while no scheduler worked is given up in time, also without a task.
            if executor.state.state is ExecutorState.REGISTERED and gone(executor.state.id):
                self._lost_executors.add(executor.state.id)

    def observe(self, changes: Changes, causes: dict[str, Cause]) -> None:
        """Take in what a batch changed; `causes` names for each run the commit that touched it last."""
        self._causes.update(causes)
        for changed_task in changes.executor_tasks.values():
            self._observe_task(changed_task.now.state)
        runs: list[Changed[Run]] = sorted(changes.runs.values(), key=lambda changed: changed.now.state.sequence)
        for changed in runs:
            self._observe_run(changed.now.state)
        for run_id in [run for run, sequence in self._busy.items() if _IN_FLIGHT < sequence <= self.fold.after]:
            del self._busy[run_id]

    def _observe_run(self, run: Run) -> None:
        if run.finished:
            touched = self._groups.left(run)
        else:
            touched = self._groups.joined(run, self.fold.configs[run.run_config].concurrency)
        self._dirty.update(dict.fromkeys(touched))
        self._wakes.set(run.id, self._next_due(run))
        if run.archived:
            self._dirty.pop(run.id, None)
        else:
            self._dirty[run.id] = None

    def _next_due(self, run: Run) -> datetime | None:
        try:
            return None if run.finished else next_due(run, self.fold.configs[run.run_config])
        except OverflowError:  # beyond all times
            return None

    def _observe_task(self, task: ExecutorTask) -> None:
        if task.open:
            self._turns.opened(self.fold.partition, task.id, task.executor_id, group_root(task.group))
        else:
            self._turns.closed(self.fold.partition, task.id)
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

    def granted(self, run_id: str) -> None:
        """A task of the run that waited has got room at an executor."""
        self._dirty[run_id] = None

    def executor_gone(self, executor_id: str, reason: str) -> None:
        """An executor was given up: its open tasks have failed, and nothing more of its others will be stored."""
        for task_id in self._tasks_of.get(executor_id, ()):
            self._lost[task_id] = reason
        known = self.fold.executors.get(executor_id)
        if known is not None and known.state.state is ExecutorState.REGISTERED:
            self._lost_executors.add(executor_id)

    def decisions(self, at: datetime) -> list[Decision]:
        """What is to be decided now; each must be given back with `done` or `failed`."""
        made = []
        self._dirty.update(dict.fromkeys(self._wakes.take(at)))
        for run_id in [run for run in self._dirty if run not in self._busy]:
            del self._dirty[run_id]
            try:
                decision = self._decide(run_id, at)
            except Exception:  # one run that cannot be decided stops no other one's; the next commit of it tries again
                logger.exception("A run cannot be decided", action="run_undecided", run=run_id)
                continue
            if decision is not None:
                self._busy[run_id] = _IN_FLIGHT
                made.append(decision)
        return made

    @property
    def next_due(self) -> datetime | None:
        """When there is something to decide if nothing happens before; None for never."""
        return self._wakes.first

    def _decide(self, run_id: str, at: datetime) -> Decision | None:
        tracked = self.fold.runs.get(run_id)
        if tracked is None:
            self._turns.keep(self.fold.partition, run_id, ())
            return None
        run = tracked.state
        config = self.fold.configs[run.run_config]
        place = None if run.finished else self._groups.place(run, config.concurrency)
        plan = plan_run(run, config, place, self.fold.executor_tasks, at)
        asks = tuple(
            ask_for(plan.run, name, config, self.fold.partition, self.fold.executor_tasks) for name in plan.runnable
        )
        self._turns.keep(self.fold.partition, run_id, {ask.id for ask in asks})
        if not plan.events and not plan.to_stop and not plan.to_withdraw and all(map(self._turns.waits, asks)):
            return None
        cause = self._causes.get(run_id, Cause(f"{run_id}@{tracked.head.version}", ""))
        commit = None
        if plan.events:
            address = Address(self.fold.partition, "run", run_id)
            commit = decided(tracked.head, address, plan.events, at, cause=cause.commit_id, trace=cause.trace)
        return Decision(run_id, plan, asks, commit, cause.commit_id, cause.trace)

    def follow_ups(self, decisions: Sequence[Decision], at: datetime) -> list[list[NewCommit]]:
        """For each decision the commits that rest on its own events, once these are in the log.

        None for a run that has been archived and forgotten, and no assignment of a task that has been assigned: who
        reads the log again, as after a restore, decides what was decided and may get to know how it went meanwhile.
        """
        self._turns.want([ask for decision in decisions for ask in decision.asks if self._may_want(ask)])
        return [self._follow_ups(decision, at) if decision.run_id in self.fold.runs else [] for decision in decisions]

    def _follow_ups(self, decision: Decision, at: datetime) -> list[NewCommit]:
        return [*self._stops(decision, at), *self._withdrawals(decision, at), *self._assignments(decision, at)]

    def _may_want(self, ask: Ask) -> bool:
        return ask.run_id in self.fold.runs and ask.id not in self.fold.executor_tasks

    def _assignments(self, decision: Decision, at: datetime) -> Iterator[NewCommit]:
        run = decision.plan.run
        config = self.fold.configs[run.run_config]
        cause, trace = decision.cause, decision.trace
        workspaces = Workspaces(run, config)
        for ask in decision.asks:
            if (executor_id := self._turns.take(ask)) is not None:
                yield assignment(run, ask, config, executor_id, workspaces.of(ask.task), at, cause=cause, trace=trace)

    def _withdrawals(self, decision: Decision, at: datetime) -> Iterator[NewCommit]:
        run = decision.plan.run
        config = self.fold.configs[run.run_config]
        for name in decision.plan.to_withdraw:
            ask = ask_for(run, name, config, self.fold.partition, self.fold.executor_tasks)
            yield withdrawal(run, ask, config, at, cause=decision.cause, trace=decision.trace)

    def _stops(self, decision: Decision, at: datetime) -> Iterator[NewCommit]:
        """The requests to stop that the decision holds; not for what has ended since."""
        for task_id in decision.plan.to_stop:
            tracked = self.fold.executor_tasks[task_id]
            if events := decide_stop(tracked.state):
                address = Address(self.fold.partition, "task", task_id, tracked.state.executor_id)
                yield tracked.head.next_commit(
                    address, events, time=at, actor=ACTOR, cause=decision.cause, trace=decision.trace
                )

    def done(self, decision: Decision, last_sequence: int) -> None:
        """The decision's commits are in the log up to this sequence (0: none was accepted)."""
        if last_sequence > self.fold.after:
            self._busy[decision.run_id] = last_sequence
        else:
            self._busy.pop(decision.run_id, None)

    def accepted(self, commit: NewCommit, sequence: int) -> None:
        """The commit is in the log at this sequence. It may have been there before, and have come back already."""
        if sequence <= self.fold.after:
            self._as_known(commit.address)

    def refused(self, commit: NewCommit) -> None:
        """Another decision was first; it has come back through the feed, or will."""
        self._as_known(commit.address)

    def _as_known(self, address: Address) -> None:
        """Count the room that a task was given as the log says of the task, not as it was to be."""
        if address.kind != "task":
            return
        tracked = self.fold.executor_tasks.get(address.id)
        if tracked is not None:
            self._observe_task(tracked.state)
        else:
            self._turns.refused(self.fold.partition, address.id, address.executor_id)

    def failed(self, decision: Decision) -> None:
        """The log could not be reached: decide again later."""
        self._busy.pop(decision.run_id, None)
        self._dirty[decision.run_id] = None

    @property
    def has_losses(self) -> bool:
        """Whether tasks wait to be declared lost."""
        return bool(self._lost or self._lost_executors)

    def losses(self, at: datetime) -> Iterator[NewCommit]:
        """The commits that declare gone executors and their tasks lost; each is given once."""
        executors, self._lost_executors = self._lost_executors, set()
        for executor_id in executors:
            head = self.fold.executors[executor_id].head
            address = Address(self.fold.partition, "executor", executor_id)
            gone = ExecutorLost(self._last_seen(executor_id))
            yield head.next_commit(address, (gone,), time=at, actor=ACTOR, cause=f"lost:{executor_id}")
        lost, self._lost = self._lost, {}
        for task_id, reason in lost.items():
            tracked = self.fold.executor_tasks.get(task_id)
            if tracked is not None and (events := decide_lost(tracked.state, at, reason)):
                yield self._scheduler_commit(tracked, events, at, f"lost:{tracked.state.executor_id}")

    def still_lost(self, commit: NewCommit) -> None:
        """A loss could not be recorded: try again with the next losses."""
        for event in commit.events:
            if isinstance(event, ExecutorTaskLost):
                self._lost[commit.address.id] = event.error
            elif isinstance(event, ExecutorLost):
                self._lost_executors.add(commit.address.id)

    def _scheduler_commit(
        self, tracked: Tracked[ExecutorTask], events: tuple[ExecutorTaskEvent, ...], at: datetime, cause: str
    ) -> NewCommit:
        task = tracked.state
        address = Address(self.fold.partition, "task", task.id, task.executor_id)
        trace = known.trace if (known := self._causes.get(task.run_id)) is not None else ""
        return tracked.head.next_commit(address, events, time=at, actor=ACTOR, cause=cause, trace=trace)

    def why(self, run_id: str, at: datetime) -> Explanation | None:
        """Why the run waits at this time; None when it is not in memory."""
        return explanation(self.fold, self._groups, self._turns, run_id, at)

    def forget(self, run_id: str) -> None:
        """The run is archived and projected: it is in memory no longer."""
        self._causes.pop(run_id, None)
        self._busy.pop(run_id, None)
        self._turns.keep(self.fold.partition, run_id, ())
