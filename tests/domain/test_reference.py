"""Any valid graph and any order of outcomes: the domain and the naive reference agree after every move."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from runstream.domain import run as runs
from runstream.domain.actions import NotAllowed, decide_approve, decide_stop
from runstream.domain.advance import advance, tasks_to_run
from runstream.domain.execution import with_executor_task
from runstream.domain.executor_task import ExecutorTask, StepState
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run import RunStarted
from runstream.events.run_config import Condition, Depend, RunConfig
from runstream.runconfig.graph import ancestors, check_graph
from tests.factories import run_created

from .reference import Run as Reference
from .world import CONDITIONS, config, task

AT = datetime(2026, 1, 1, tzinfo=UTC)
CANCELLED, FAILED = ExecutorTaskPhase.CANCELLED, ExecutorTaskPhase.FAILED
RUNNING, STOPPED, SUCCESS = ExecutorTaskPhase.RUNNING, ExecutorTaskPhase.STOPPED, ExecutorTaskPhase.SUCCESS
some_conditions = st.lists(st.sampled_from(CONDITIONS), min_size=1, unique=True).map(tuple[Condition, ...])


@st.composite
def graphs(draw: st.DrawFn) -> RunConfig:
    """Up to eight tasks that depend on earlier ones, and say nothing twice."""
    parents: dict[str, list[str]] = {}
    tasks = []
    for index in range(draw(st.integers(1, 8))):
        name = f"t{index}"
        wanted = draw(st.lists(st.sampled_from(sorted(parents)), unique=True, max_size=3)) if parents else []
        above = ancestors(parents)
        parents[name] = [one for one in wanted if not any(one in above[other] for other in wanted)]
        tasks.append(
            task(
                name,
                *(Depend(parent, draw(some_conditions)) for parent in parents[name]),
                save=draw(st.booleans()),
                ignore_failure=draw(st.booleans()),
                skip=draw(st.integers(0, 5)) == 0,
                needs_approval=draw(st.integers(0, 4)) == 0,
            )
        )
    return replace(config(*tasks), fail_fast=draw(st.booleans()))


class Agreement(RuleBasedStateMachine):
    """One run in both worlds; what a rule does to one it does to the other."""

    content: RunConfig
    run: runs.RunState
    reference: Reference
    executor_tasks: dict[str, ExecutorTask]

    @initialize(content=graphs())
    def begin(self, content: RunConfig) -> None:
        assert check_graph(content.tasks) == []
        self.content = content
        event = run_created(content.name, run_config="hash")
        created = runs.created("r", event, content, AT, lambda run, name: f"{run}-{name}")
        self.run = runs.evolve(created, RunStarted(), AT)
        self.reference = Reference.of(content)
        self.executor_tasks = {}
        self.follow()

    @precondition(lambda self: bool(tasks_to_run(self.run, self.content, AT)))
    @rule(which=st.integers(0, 7))
    def give(self, which: int) -> None:
        """The scheduler gives a task to an executor."""
        names = tasks_to_run(self.run, self.content, AT)
        name = names[which % len(names)]
        begun = StepState(start_time=AT)
        steps = (begun,) * len(self.content.tasks[name].steps)
        ids = (f"e-{name}", "e1", "r", f"r-{name}", name, "hash", self.run.group)
        made = ExecutorTask(*ids, 1, 0, begun, steps, 1, {})
        self.reference.tasks[name].was_given = self.reference.tasks[name].executor_task = True
        self.report(made)

    @precondition(lambda self: bool(self.open()))
    @rule(which=st.integers(0, 7), phase=st.sampled_from([RUNNING, SUCCESS, FAILED, STOPPED, CANCELLED]))
    def go_on(self, which: int, phase: ExecutorTaskPhase) -> None:
        """An executor begins a task, or ends it in one of all ways; a task may fail before it began."""
        current = self.open()[which % len(self.open())]
        if current.phase is RUNNING and phase in (RUNNING, CANCELLED):
            return
        saves = self.run.tasks[current.task].archive_steps
        steps = tuple(
            replace(step, phase=phase if phase in (SUCCESS, FAILED) else step.phase) for step in current.steps
        )
        self.reference.tasks[current.task].status = phase.value
        self.reference.tasks[current.task].unfetched_archives = len(saves) if phase is SUCCESS else 0
        self.report(replace(current, phase=phase, steps=steps))

    @precondition(lambda self: bool(self.unsettled()))
    @rule(which=st.integers(0, 7), logs=st.booleans())
    def store(self, which: int, *, logs: bool) -> None:
        """The archives of an ended task are stored, or all that it left."""
        current = self.unsettled()[which % len(self.unsettled())]
        steps = tuple(
            replace(step, archive_stored=True, log_settled=logs or step.log_settled) for step in current.steps
        )
        setup = replace(current.setup_step, log_settled=logs or current.setup_step.log_settled)
        self.reference.tasks[current.task].unfetched_archives = 0
        self.reference.tasks[current.task].executor_task = not logs
        self.report(replace(current, steps=steps, setup_step=setup))

    @precondition(lambda self: bool(self.waiting()))
    @rule(which=st.integers(0, 7))
    def approve(self, which: int) -> None:
        """A user approves a task."""
        name = self.waiting()[which % len(self.waiting())]
        for event in decide_approve(self.run, self.run.tasks[name]):
            self.run = runs.evolve(self.run, event, AT, "user")
        self.reference.tasks[name].waiting_approval = False
        self.reference.tasks[name].approved = True
        self.follow()

    @rule(really=st.integers(0, 3))
    def stop(self, really: int) -> None:
        """A user stops the run, now and then."""
        if really:
            return
        try:
            events = decide_stop(self.run)
        except NotAllowed:
            assert self.reference.phase == "finished"
            return
        for event in events:
            self.run = runs.evolve(self.run, event, AT, "user")
        self.reference.stop = True
        for one in self.reference.tasks.values():
            one.waiting_approval = False
        self.follow()

    def report(self, executor_task: ExecutorTask) -> None:
        self.executor_tasks[executor_task.task] = executor_task
        self.run = with_executor_task(self.run, executor_task)
        self.follow()

    def follow(self) -> None:
        """Everything that follows, in both worlds."""
        self.run, _ = advance(self.run, self.content, AT)
        self.reference.settle()

    def open(self) -> list[ExecutorTask]:
        return [one for one in self.executor_tasks.values() if one.open]

    def unsettled(self) -> list[ExecutorTask]:
        return [one for one in self.executor_tasks.values() if not one.open and not one.settled]

    def waiting(self) -> list[str]:
        return [name for name, one in self.run.tasks.items() if one.waiting_approval]

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "run"):
            return
        ours, theirs = self.run, self.reference
        assert {name: one.status.value for name, one in ours.tasks.items()} == {
            name: one.status for name, one in theirs.tasks.items()
        }
        assert (ours.phase.value, ours.result.value, ours.archived) == (theirs.phase, theirs.result, theirs.archived)
        assert self.waiting() == [name for name, one in theirs.tasks.items() if one.waiting_approval]
        assert set(tasks_to_run(ours, self.content, AT)) == theirs.tasks_to_run()

    def teardown(self) -> None:
        """Whatever happened, the run can be brought to its end."""
        while hasattr(self, "run") and not self.run.archived:
            if self.waiting():
                self.approve(0)
            elif self.unsettled():
                self.store(0, logs=True)
            elif self.open():
                self.go_on(0, SUCCESS)
            else:
                self.give(0)
            self.they_agree()


Agreement.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestAgreement = Agreement.TestCase
