"""The actions of users on runs, and the states that allow them (rules stop-1 to stop-7)."""

from __future__ import annotations

from runstream.domain.run import RunState, RunTask
from runstream.events.run import (
    RunCancelled,
    RunDeleted,
    RunEvent,
    RunPaused,
    RunResumed,
    RunStopRequested,
    RunTaskAnnotated,
    RunTaskApproved,
)
from runstream.run_states import RunPhase


class NotAllowed(Exception):  # noqa: N818  it is an answer, not a failure
    """The current state of the run does not allow the action."""

    def __init__(self, message: str, code: str, allowed: str) -> None:
        super().__init__(message)
        self.code = code
        self.allowed = allowed
        """The actions that are allowed instead."""


def decide_stop(run: RunState) -> tuple[RunEvent, ...]:
    """Ask a running run to stop; do nothing if it is stopping already."""
    if run.phase is not RunPhase.RUNNING:
        raise _not_in(run, "stopped", "runNotRunning")
    return () if run.stop else (RunStopRequested(reason=""),)


def decide_cancel(run: RunState) -> tuple[RunEvent, ...]:
    """Withdraw a queued run."""
    if run.phase is not RunPhase.QUEUED:
        raise _not_in(run, "cancelled", "runNotQueued")
    return (RunCancelled(reason=""),)


def decide_pause(run: RunState) -> tuple[RunEvent, ...]:
    """Pause a run: start no further tasks; do nothing if it is paused already."""
    if run.finished or run.stop:
        raise _not_in(run, "paused", "runCannotBePaused")
    return () if run.paused_at is not None else (RunPaused(),)


def decide_resume(run: RunState) -> tuple[RunEvent, ...]:
    """Let a paused run go on."""
    if run.paused_at is None:
        raise _not_in(run, "resumed", "runNotPaused")
    return (RunResumed(),)


def decide_delete(run: RunState, reason: str = "") -> tuple[RunEvent, ...]:
    """Delete a run that has ended and whose logs are stored; `reason` is the rule of retention, empty for a user."""
    if not run.finished:
        raise _not_in(run, "deleted", "runNotEnded")
    if not run.archived:
        raise NotAllowed(
            "the run has ended, and its last logs are not stored yet", "runLogsPending", "try again in a moment"
        )
    return () if run.deleted_at is not None else (RunDeleted(reason),)


def decide_approve(run: RunState, task: RunTask) -> tuple[RunEvent, ...]:
    """Approve a task that waits for approval."""
    if task.approved:
        raise NotAllowed(f"task {task.name!r} is approved already", "runTaskAlreadyApproved", "nothing more is needed")
    if not task.waiting_approval:
        raise NotAllowed(
            f"task {task.name!r} is {task.status.value} and does not wait for approval",
            "runTaskNotWaitingApproval",
            "a task can be approved once everything it depends on is done",
        )
    return (RunTaskApproved(task.name),)


def decide_approve_ahead(task: RunTask, author: str) -> tuple[RunEvent, ...]:
    """Approve a task in any state; one that does not wait yet will not wait. An author approves a task once."""
    if author in task.approvers:
        raise NotAllowed(f"you have approved task {task.name!r} already", "runTaskAlreadyApproved", "nothing more")
    return (RunTaskApproved(task.name),)


def decide_annotate(task: RunTask, annotations: dict[str, str]) -> tuple[RunEvent, ...]:
    """Replace the annotations of a task; do nothing if it has exactly these already."""
    return () if annotations == task.annotations else (RunTaskAnnotated(task.name, annotations),)


def _not_in(run: RunState, wanted: str, code: str) -> NotAllowed:
    return NotAllowed(f"the run is {_state(run)} and cannot be {wanted}", code, _allowed(run))


def _state(run: RunState) -> str:
    if run.stop and not run.finished:
        return "being stopped"
    return run.phase.value if run.paused_at is None else f"{run.phase.value}, paused,"


def _allowed(run: RunState) -> str:
    if run.phase is RunPhase.SETUP_ERROR:
        return "the run has ended: correct its configuration and create a new run"
    if run.finished:
        return "the run has ended: it can be restarted"
    if run.stop:
        return "it ends when its tasks have ended"
    end = "stopped" if run.phase is RunPhase.RUNNING else "cancelled"
    other = "paused" if run.paused_at is None else "resumed"
    return f"a run that is {_state(run).rstrip(',')} can be {end} or {other}"
