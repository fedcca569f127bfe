"""An executor task: its state, folded from its events, and the decisions about it.

Rules task-3, task-4, task-8 and executor-9 to executor-12.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.events.executor_task import (
    ExecutorTaskArchiveStored,
    ExecutorTaskAssigned,
    ExecutorTaskCancelled,
    ExecutorTaskEvent,
    ExecutorTaskFinished,
    ExecutorTaskInterrupted,
    ExecutorTaskLogLost,
    ExecutorTaskLogStored,
    ExecutorTaskLost,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStarted,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
    ExecutorTaskStepTimedOut,
    ExecutorTaskStopRequested,
    ExecutorTaskTimedOut,
)
from runstream.events.run_config import RetryReason

NOBODY = "nobody"
"""The pseudo-executor of withdrawn tasks, which are assigned to it and cancelled in one commit."""
OPEN_PHASES = frozenset({ExecutorTaskPhase.NOT_STARTED, ExecutorTaskPhase.RUNNING})


class StepState(Struct, frozen=True, gc=False):
    """The progress of a step, or of the setup, which counts as a step."""

    phase: ExecutorTaskPhase = ExecutorTaskPhase.NOT_STARTED
    start_time: datetime | None = None
    end_time: datetime | None = None
    exit_status: int | None = None
    log_settled: bool = False
    """True once its log is an object, or known to be lost."""
    archive_stored: bool = False
    warnings: tuple[str, ...] = ()
    """Warnings of a step that succeeded, such as patterns that selected nothing."""
    timedout: Literal["", "timeout", "no_output"] = ""
    """Which limit it passed."""

    def failed_at(self, at: datetime) -> StepState:
        """Return this step, failed if it was open."""
        if self.phase is not ExecutorTaskPhase.RUNNING:
            return self
        return replace(self, phase=ExecutorTaskPhase.FAILED, end_time=at)


class ExecutorTask(Struct, frozen=True, gc=False):
    """One attempt at a run's task: it is executed at most once."""

    id: str
    executor_id: str
    run_id: str
    run_task_id: str
    task: str
    run_config: str
    group: str
    counter: int
    timeout: int
    """Nanoseconds from the end of setup; 0 for none."""
    setup_step: StepState
    steps: tuple[StepState, ...]
    attempt: int
    workspaces: dict[str, str]
    """Ids of ancestors' archives that differ from the id derived from the run, by the ancestor's name."""
    phase: ExecutorTaskPhase = ExecutorTaskPhase.NOT_STARTED
    stop: bool = False
    timedout: bool = False
    interrupted: bool = False
    """True if its executor stopped before the task ended."""
    lost: bool = False
    fail_error: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def open(self) -> bool:
        """True if it may still start or is running."""
        return self.phase in OPEN_PHASES

    @property
    def withdrawn(self) -> bool:
        """True if it was withdrawn, so that no executor ever gets it."""
        return self.executor_id == NOBODY

    @property
    def settled(self) -> bool:
        """True if it has ended and nothing of it remains to be stored."""
        if self.open:
            return False
        begun = (step for step in (self.setup_step, *self.steps) if step.start_time is not None)
        return self.lost or all(step.log_settled for step in begun)

    @property
    def failure(self) -> RetryReason | Literal[""]:
        """The reason of its failure; empty if it has not failed."""
        if self.phase is not ExecutorTaskPhase.FAILED:
            return ""
        if self.timedout:
            return "timeout"
        return "lost" if self.interrupted else "failure"


def assigned(task_id: str, event: ExecutorTaskAssigned) -> ExecutorTask:
    """Return the executor task that an assignment creates."""
    return ExecutorTask(
        id=task_id,
        executor_id=event.executor_id,
        run_id=event.run_id,
        run_task_id=event.run_task_id,
        task=event.task,
        run_config=event.run_config,
        group=event.group,
        counter=event.counter,
        timeout=event.timeout,
        setup_step=StepState(),
        steps=(StepState(),) * event.steps,
        attempt=event.attempt,
        workspaces=event.workspaces,
    )


def evolve(task: ExecutorTask, event: ExecutorTaskEvent) -> ExecutorTask:
    """Return the executor task after the event; an assignment is handled by `assigned`."""
    match event:  # the events of every task come first, since cases are tried in order
        case ExecutorTaskAssigned():
            return task
        case ExecutorTaskStarted(at):
            setup = replace(task.setup_step, phase=ExecutorTaskPhase.RUNNING, start_time=at)
            return replace(task, phase=ExecutorTaskPhase.RUNNING, start_time=at, setup_step=setup)
        case ExecutorTaskSetupFinished(at, phase):
            return replace(task, setup_step=replace(task.setup_step, phase=phase, end_time=at))
        case ExecutorTaskStepStarted(step, at):
            return _with_step(task, step, phase=ExecutorTaskPhase.RUNNING, start_time=at)
        case ExecutorTaskStepFinished(step, at, phase, exit_status):
            return _with_step(task, step, phase=phase, end_time=at, exit_status=exit_status)
        case ExecutorTaskLogStored(step) | ExecutorTaskLogLost(step):
            if step is None:
                return replace(task, setup_step=replace(task.setup_step, log_settled=True))
            return _with_step(task, step, log_settled=True)
        case ExecutorTaskFinished(at, phase, error):
            return replace(task, phase=phase, end_time=at, fail_error=error)
        case ExecutorTaskArchiveStored(step, warnings):
            return _with_step(task, step, archive_stored=True, warnings=warnings)
        case ExecutorTaskStopRequested():
            return replace(task, stop=True)
        case ExecutorTaskTimedOut():
            return replace(task, timedout=True)
        case ExecutorTaskStepTimedOut(step, _, limit):
            return replace(_with_step(task, step, timedout=limit), timedout=True)
        case ExecutorTaskInterrupted():
            return replace(task, interrupted=True)
        case ExecutorTaskCancelled(at):
            return replace(task, phase=ExecutorTaskPhase.CANCELLED, end_time=at)
        case ExecutorTaskLost(at, error):
            if not task.open:
                return replace(task, lost=True)
            return replace(
                task,
                phase=ExecutorTaskPhase.FAILED,
                interrupted=True,
                lost=True,
                fail_error=error,
                end_time=at,
                setup_step=task.setup_step.failed_at(at),
                steps=tuple(step.failed_at(at) for step in task.steps),
            )
    assert_never(event)


def _with_step(task: ExecutorTask, index: int, **changes: object) -> ExecutorTask:
    if index < 0:
        raise IndexError(f"there is no step {index}")
    step = replace(task.steps[index], **changes)
    return replace(task, steps=(*task.steps[:index], step, *task.steps[index + 1 :]))


def decide_report(task: ExecutorTask, events: tuple[ExecutorTaskEvent, ...]) -> tuple[ExecutorTaskEvent, ...]:
    """Return the reported events that are valid: none about the phase once the task has ended.

    A task that was declared lost refuses late reports of its phase. It still accepts reports of stored logs and
    archives, and a step that is not in the log yet, which its executor found after a restart.
    """
    if task.open:
        return events
    stored = (ExecutorTaskLogStored, ExecutorTaskLogLost, ExecutorTaskArchiveStored)
    return tuple(event for event in events if isinstance(event, stored) or (task.lost and _is_found(task, event)))


def _is_found(task: ExecutorTask, event: ExecutorTaskEvent) -> bool:
    match event:
        case ExecutorTaskStepStarted(step) | ExecutorTaskStepFinished(step, _, ExecutorTaskPhase.FAILED):
            return task.steps[step].start_time is None
    return False


def decide_start(task: ExecutorTask, at: datetime) -> tuple[ExecutorTaskEvent, ...]:
    """Start a task that was never started, or cancel it if it is to stop; otherwise do nothing, so it starts at most
    once."""
    if task.phase is not ExecutorTaskPhase.NOT_STARTED:
        return ()
    if task.stop or task.timedout:
        return (ExecutorTaskCancelled(at),)
    return (ExecutorTaskStarted(at),)


def decide_abandoned(task: ExecutorTask, at: datetime) -> tuple[ExecutorTaskEvent, ...]:
    """Fail a task that was running when its executor died, after the executor's restart (rule executor-11)."""
    if task.phase is not ExecutorTaskPhase.RUNNING:
        return ()
    failed = ExecutorTaskPhase.FAILED
    events: list[ExecutorTaskEvent] = [ExecutorTaskInterrupted(at)]
    if task.setup_step.phase is ExecutorTaskPhase.RUNNING:
        events.append(ExecutorTaskSetupFinished(at, failed))
    events.extend(
        ExecutorTaskStepFinished(index, at, failed, None)
        for index, step in enumerate(task.steps)
        if step.phase is ExecutorTaskPhase.RUNNING
    )
    events.append(ExecutorTaskFinished(at, failed, "executor lost: it was restarted while the task was running"))
    return tuple(events)


def decide_failed(task: ExecutorTask, at: datetime, error: str) -> tuple[ExecutorTaskEvent, ...]:
    """Fail a task that its executor cannot handle, started or not; do nothing once it has ended."""
    events: tuple[ExecutorTaskEvent, ...] = ()
    if task.phase is ExecutorTaskPhase.NOT_STARTED:
        events = (ExecutorTaskStarted(at),)
        task = evolve(task, events[0])
    abandoned = decide_abandoned(task, at)
    if not abandoned:
        return ()
    return (*events, *abandoned[:-1], ExecutorTaskFinished(at, ExecutorTaskPhase.FAILED, error))


def decide_lost(task: ExecutorTask, at: datetime, reason: str) -> tuple[ExecutorTaskEvent, ...]:
    """Declare a task of a lost executor lost: an open task fails, and the logs of an ended one are no longer
    awaited."""
    return () if task.settled else (ExecutorTaskLost(at, reason),)


def decide_stop(task: ExecutorTask) -> tuple[ExecutorTaskEvent, ...]:
    """Ask for its end, once."""
    return (ExecutorTaskStopRequested(),) if task.open and not task.stop else ()


def decide_timeout(task: ExecutorTask) -> tuple[ExecutorTaskEvent, ...]:
    """Time the task out; do nothing if it has ended, or has timed out already."""
    return (ExecutorTaskTimedOut(),) if task.open and not task.timedout else ()
