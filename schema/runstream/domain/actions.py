"""What a user may ask of a run, and when (domain c.3, c.14)."""

from __future__ import annotations

from runstream.domain.run import Run, RunPhase, RunTask
from runstream.events.run import (
    RunCancelled,
    RunEvent,
    RunStopRequested,
    RunTaskApproved,
)


class NotAllowed(Exception):  # noqa: N818  it is an answer, not a failure
    """The run's present state does not allow what was asked."""

    def __init__(self, message: str, code: str, allowed: str) -> None:
        super().__init__(message)
        self.code = code
        self.allowed = allowed
        """What would be allowed instead."""


def decide_stop(run: Run) -> tuple[RunEvent, ...]:
    """Ask a running run to stop; nothing when it was asked already."""
    if run.phase is not RunPhase.RUNNING:
        raise _not_in(run, "stopped", "runNotRunning")
    return () if run.stop else (RunStopRequested(reason=""),)


def decide_cancel(run: Run) -> tuple[RunEvent, ...]:
    """Withdraw a queued run."""
    if run.phase is not RunPhase.QUEUED:
        raise _not_in(run, "cancelled", "runNotQueued")
    return (RunCancelled(reason=""),)


def decide_approve(run: Run, task: RunTask) -> tuple[RunEvent, ...]:
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


def _not_in(run: Run, wanted: str, code: str) -> NotAllowed:
    allowed = {
        RunPhase.QUEUED: "a queued run can be cancelled",
        RunPhase.RUNNING: "a running run can be stopped",
    }.get(run.phase, "the run has ended: nothing more can be done to it")
    return NotAllowed(f"the run is {run.phase.value} and cannot be {wanted}", code, allowed)
