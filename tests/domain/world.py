"""A small world for the pure parts: a log as a list, schedulers that lag behind it, executors, users.

Every commit goes through the same optimistic check as in the real log, so two schedulers at once, a scheduler
that sees an old state, and an executor that was declared lost can be played in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Literal

from msgspec.structs import replace

from runstream.commits import DecodedCommit, Head, NewCommit, Position, StoredCommit
from runstream.domain import executor_task as executor_tasks
from runstream.domain.actions import (
    NotAllowed,
    decide_approve,
    decide_cancel,
    decide_delete,
    decide_pause,
    decide_resume,
    decide_stop,
)
from runstream.domain.executor import Offer
from runstream.domain.executor_task import ExecutorTask, decide_abandoned, decide_report, decide_start
from runstream.domain.restart import decide_restart
from runstream.domain.run import RestartOrigin, RunState, RunTaskStatus
from runstream.events.executor_task import (
    ExecutorTaskArchiveStored,
    ExecutorTaskEvent,
    ExecutorTaskFinished,
    ExecutorTaskLogStored,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
    ExecutorTaskStepTimedOut,
)
from runstream.events.run import RunDataRemoved
from runstream.events.run_config import (
    Concurrency,
    Condition,
    Depend,
    GroupPolicy,
    Retry,
    RetryReason,
    RunConfig,
    RunConfigStored,
    RunConfigTask,
    Runtime,
    Step,
)
from runstream.projections.fold import PartitionFold
from runstream.runconfig.parse import POLICIES
from runstream.scheduler.capacity import Capacity
from runstream.scheduler.decisions import Cause, Decider, Decision
from runstream.scheduler.fair_queue import FairQueue
from runstream.subjects import Address
from tests.factories import run_created

SECOND = 1_000_000_000
START = datetime(2026, 1, 1, tzinfo=UTC)
SCOPES: tuple[Literal["all", "failed", "chosen"], ...] = ("all", "failed", "chosen")
REASONS: tuple[RetryReason, ...] = ("failure", "lost", "timeout")
ASKED = {"stop": decide_stop, "cancel": decide_cancel, "pause": decide_pause, "resume": decide_resume}
CONDITIONS: tuple[Condition, ...] = ("on_success", "on_failure", "on_skipped", "always")


def task(
    name: str, *depends: Depend, level: int = 0, steps: int = 1, save: bool = False, **changes: object
) -> RunConfigTask:
    kinds = [
        Step(type="save_to_workspace") if save and i == 0 else Step(type="run", command="true") for i in range(steps)
    ]
    fields: dict[str, object] = {
        "name": name,
        "level": level,
        "depends": depends,
        "runtime": Runtime("host", "", ()),
        "environment": {},
        "working_dir": "~/project",
        "shell": "/bin/sh -e",
        "user": "",
        "steps": tuple(kinds),
        "ignore_failure": False,
        "skip": False,
        "needs_approval": False,
        "docker_registries_auth": {},
        "task_timeout_interval": 0,
    }
    return RunConfigTask(**{**fields, **changes})  # type: ignore[arg-type]


def config(*tasks: RunConfigTask, name: str = "run") -> RunConfig:
    return RunConfig(name, {task.name: task for task in tasks}, {}, {}, "")


def random_config(random: Random) -> RunConfig:
    tasks: list[RunConfigTask] = []
    for index in range(random.randint(1, 5)):
        parents = [parent for parent in tasks if random.random() < 0.4]
        depends = [Depend(parent.name, tuple(random.sample(CONDITIONS, random.randint(1, 3)))) for parent in parents]
        tasks.append(
            task(
                f"t{index}",
                *depends,
                level=1 + max((parent.level for parent in parents), default=-1),
                steps=random.randint(0, 2),
                save=random.random() < 0.3,
                ignore_failure=random.random() < 0.3,
                skip=random.random() < 0.15,
                needs_approval=random.random() < 0.15,
                retry=random_retry(random),
            )
        )
    content = replace(
        config(*tasks, name=random.choice(["run", "run", "other"])), concurrency=random_concurrency(random)
    )
    content = replace(content, fail_fast=random.random() < 0.3)
    return replace(content, run_timeout_interval=random.randint(5, 90) * SECOND) if random.random() < 0.2 else content


def random_concurrency(random: Random) -> Concurrency:
    policy: GroupPolicy = random.choice(POLICIES) if random.random() < 0.5 else "queue"
    return Concurrency(policy, random.choice([0, 0, 1, 2]))


def random_retry(random: Random) -> Retry | None:
    if random.random() < 0.5:
        return None
    reasons = tuple(random.sample(REASONS, random.randint(1, 3)))
    return Retry(random.randint(1, 3), random.choice([0, 0, SECOND, 50 * SECOND]), reasons)


def offer(executor_id: str, limit: int = 2) -> Offer:
    return Offer(executor_id, ("amd64",), {}, False, True, False, limit, {})


@dataclass
class Scheduler:
    """One scheduler process with its own view of the log."""

    world: World
    fold: PartitionFold = field(default_factory=lambda: PartitionFold(0, 1))
    read: int = 0
    planned: list[Decision] = field(default_factory=list)
    accepted: list[tuple[Decision, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = FairQueue(Capacity(self.world.offers))
        self.queue.own(0, lambda run_id: self.decider.slot_reserved(run_id))
        self.decider = Decider(self.fold, self.queue, self.world.gone.get)

    def catch_up(self, count: int | None = None) -> None:
        commits = self.world.log[self.read : None if count is None else self.read + count]
        self.read += len(commits)
        causes = {}
        for stored in commits:
            assert not self.fold.needs([stored])
            self.fold.apply(stored)
            run_id = stored.commit.address.id
            if stored.commit.address.kind == "task":
                run_id = self.fold.executor_tasks[run_id].state.run_id
            causes[run_id] = Cause(stored.commit.id, "")
        self.decider.observe(self.fold.take_changes(), causes)

    def plan(self) -> None:
        self.planned += self.decider.decisions(self.world.now())

    def append_runs(self) -> None:
        planned, self.planned = self.planned, []
        for decision in planned:
            sequence = 0 if decision.commit is None else self.world.append(decision.commit)
            if decision.commit is not None and not sequence:
                self.decider.done(decision, 0)
            else:
                self.accepted.append((decision, sequence))

    def append_rest(self) -> None:
        accepted, self.accepted = self.accepted, []
        follow_ups = self.decider.follow_ups([decision for decision, _ in accepted], self.world.now())
        for (decision, sequence), commits in zip(accepted, follow_ups, strict=True):
            for commit in commits:
                appended = self.world.append(commit)
                if appended:
                    self.decider.accepted(commit, appended)
                else:
                    self.decider.refused(commit)
                sequence = max(sequence, appended)
            self.decider.done(decision, sequence)
        for commit in self.decider.losses(self.world.now()):
            self.world.append(commit)


class World:
    """The log, the schedulers, the executors and the users."""

    def __init__(self, random: Random, schedulers: int = 2, executors: int = 2) -> None:
        self.random = random
        self.log: list[StoredCommit] = []
        self.heads: dict[str, Head] = {}
        self.offers = {f"e{i}": offer(f"e{i}") for i in range(executors)}
        self.gone: dict[str, str] = {}
        self.truth = PartitionFold(0, 1)
        self.started: list[str] = []
        self.waited = timedelta(0)
        self.schedulers = [Scheduler(self) for _ in range(schedulers)]

    def now(self) -> datetime:
        return START + timedelta(seconds=len(self.log)) + self.waited

    def append(self, commit: NewCommit) -> int:
        head = self.heads.get(commit.address.aggregate, Head())
        if head.sequence != commit.expected:
            behind = (s for s in self.log[commit.expected :] if s.commit.address.aggregate == commit.address.aggregate)
            found = next(behind, None)
            return found.position.sequence if found is not None and found.commit.id == commit.id else 0
        position = Position(1, 0, len(self.log) + 1)
        done = DecodedCommit(
            commit.id,
            commit.address,
            commit.version,
            commit.time,
            commit.actor,
            commit.cause,
            commit.events,
            commit.trace,
        )
        stored = StoredCommit(done, position, commit.time)
        self.log.append(stored)
        self.heads[commit.address.aggregate] = Head(commit.version, position.sequence)
        self.truth.apply(stored)
        return position.sequence

    # users

    def create(
        self,
        content: RunConfig,
        group: str = "/project/p/branch/main",
        annotations: Mapping[str, str] | None = None,
        run_id: str = "",
    ) -> str:
        number = sum(1 for aggregate in self.heads if aggregate.startswith("run/"))
        content_id, run_id = f"c{number}", run_id or f"r{number}"
        stored = Head().next_commit(
            Address(0, "runconfig", content_id), (RunConfigStored(content),), time=self.now(), actor="user"
        )
        assert self.append(stored)
        event = run_created(content.name, group, content_id, annotations=annotations)
        assert self.append(Head().next_commit(Address(0, "run", run_id), (event,), time=self.now(), actor="user"))
        return run_id

    def restart(self, run_id: str) -> None:
        """Ask for a restart of any kind, of some tasks or all."""
        run, content = self.run(run_id), self.truth.configs[self.run(run_id).run_config]
        names = tuple(self.random.sample(sorted(run.tasks), self.random.randint(0, len(run.tasks))))
        scope = self.random.choice(SCOPES)
        asked = RestartOrigin(
            run_id, scope, names if scope == "chosen" else (), self.random.random() < 0.5, fresh=False
        )
        try:
            restarted = decide_restart(run, content, asked)
        except NotAllowed:
            return
        new_id = f"r{sum(1 for aggregate in self.heads if aggregate.startswith('run/'))}"
        events = (run_created(run.name, run.group, run.run_config), restarted)
        assert self.append(Head().next_commit(Address(0, "run", new_id), events, time=self.now(), actor="user"))

    def remove(self, run_id: str) -> None:
        """Delete a run that is archived, or its logs or archives alone, as users and retention do."""
        tracked = self.truth.runs[run_id]
        removed = RunDataRemoved((self.random.choice(("logs", "archives")),), "a rule")
        try:
            events = decide_delete(tracked.state)
        except NotAllowed:
            return
        if events:
            events = self.random.choice([events, (removed,), (removed, *events)])
            address = Address(0, "run", run_id)
            assert self.append(tracked.head.next_commit(address, events, time=self.now(), actor="user"))

    def ask(self, run_id: str, what: str) -> None:
        tracked = self.truth.runs[run_id]
        run = tracked.state
        waiting = [task for task in run.tasks.values() if task.waiting_approval]
        try:
            events = ASKED[what](run) if what in ASKED else decide_approve(run, waiting[0]) if waiting else ()
        except NotAllowed:
            return
        if events:
            assert self.append(
                tracked.head.next_commit(Address(0, "run", run_id), events, time=self.now(), actor="user")
            )

    # executors

    def open_tasks(self) -> list[ExecutorTask]:
        tasks = (tracked.state for tracked in self.truth.executor_tasks.values())
        return [task for task in tasks if not task.settled]

    def report(self, task_id: str, decide: tuple[ExecutorTaskEvent, ...]) -> bool:
        tracked = self.truth.executor_tasks[task_id]
        events = decide_report(tracked.state, decide)
        if not events:
            return False
        address = Address(0, "task", task_id, tracked.state.executor_id)
        return bool(self.append(tracked.head.next_commit(address, events, time=self.now(), actor="executor")))

    def work(self, current: ExecutorTask) -> None:
        """The executor does the next thing about a task."""
        if current.executor_id in self.gone:
            return
        if current.phase is ExecutorTaskPhase.NOT_STARTED:
            events = decide_start(current, self.now())
            if (
                self.report(current.id, events)
                and executor_tasks.evolve(current, events[0]).phase is ExecutorTaskPhase.RUNNING
            ):
                self.started.append(current.id)
        elif current.phase is ExecutorTaskPhase.RUNNING:
            if self.random.random() < 0.1:
                self.report(current.id, decide_abandoned(current, self.now()))
            else:
                self.report(current.id, self._outcome(current))
        else:
            self.report(current.id, self._stored(current))

    def report_late(self) -> None:
        """Let an executor that was declared lost return and report how its tasks ended."""
        for tracked in list(self.truth.executor_tasks.values()):
            if tracked.state.lost:
                self.report(tracked.state.id, self._outcome(tracked.state))

    def _outcome(self, current: ExecutorTask) -> tuple[ExecutorTaskEvent, ...]:
        at = self.now()
        success, failed = ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED
        final = ExecutorTaskPhase.STOPPED if current.stop else self.random.choice([success, success, failed])
        events: list[ExecutorTaskEvent] = [ExecutorTaskSetupFinished(at, success)]
        if final is failed and current.steps and self.random.random() < 0.3:
            events.append(ExecutorTaskStepTimedOut(0, at, self.random.choice(["timeout", "no_output"])))
        store = self.random.random() < 0.7
        for index in range(len(current.steps)):
            events += [ExecutorTaskStepStarted(index, at), ExecutorTaskStepFinished(index, at, final, 0)]
            if store:
                events += [ExecutorTaskLogStored(index), ExecutorTaskArchiveStored(index, ())]
        if store:
            events.append(ExecutorTaskLogStored(None))
        return (*events, ExecutorTaskFinished(at, final, ""))

    @staticmethod
    def _stored(current: ExecutorTask) -> tuple[ExecutorTaskEvent, ...]:
        steps = range(len(current.steps))
        logs = (ExecutorTaskLogStored(None), *(ExecutorTaskLogStored(i) for i in steps))
        return (*logs, *(ExecutorTaskArchiveStored(i, ()) for i in steps))

    def lose(self, executor_id: str) -> None:
        """Lose an executor and replace it with another."""
        self.gone[executor_id] = "executor lost"
        del self.offers[executor_id]
        fresh = f"e{len(self.gone) + len(self.offers) + 1}"
        self.offers[fresh] = offer(fresh)
        for scheduler in self.schedulers:
            scheduler.decider.executor_gone(executor_id, "executor lost")
            scheduler.queue.offered(fresh)

    def settle(self) -> None:
        """Let every part work until nothing more happens."""
        while True:
            before = len(self.log)
            for scheduler in self.schedulers:
                scheduler.catch_up()
                scheduler.plan()
                scheduler.append_runs()
                scheduler.append_rest()
            for current in self.open_tasks():
                self.work(current)
            for run_id in list(self.truth.runs):
                self.ask(run_id, "approve")
                self.ask(run_id, "resume")
            if len(self.log) == before and not self.wait():
                return

    def wait(self) -> bool:
        """Let the time pass until a scheduler has something to decide; whether there is such a time."""
        dues = [due for scheduler in self.schedulers if (due := scheduler.decider.next_due) is not None]
        if dues:
            self.waited += max(min(dues) - self.now(), timedelta(0))
        return bool(dues)

    def run(self, run_id: str) -> RunState:
        return self.truth.runs[run_id].state

    def statuses(self, run_id: str) -> dict[str, RunTaskStatus]:
        return {name: task.status for name, task in self.run(run_id).tasks.items()}
