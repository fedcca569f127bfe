"""Retries of failed tasks.

If an attempt failed for one of the reasons in the task's `retry`, another one follows while any are left. The failure
of another task does not matter, unless the run is `fail_fast`: then no further attempt is made, and a task that waits
for one has failed, which its children see. A stop skips such a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from runstream.domain.clocks import out_of_time
from runstream.domain.run import RunState, RunTask, RunTaskStatus
from runstream.events.run import RunEvent, RunTaskRetried, RunTaskRetryDropped
from runstream.events.run_config import Retry, RunConfig
from runstream.run_states import RunPhase, RunResult

MAX_BACKOFF = timedelta(days=1)


def decide_retries(run: RunState, config: RunConfig, at: datetime) -> Sequence[RunEvent]:
    """Retry failed tasks, or end their wait for the next attempt."""
    if run.phase is not RunPhase.RUNNING or run.stop or out_of_time(run, config, at):
        return ()
    if config.fail_fast and run.result is not RunResult.UNKNOWN:
        return [RunTaskRetryDropped(task.name) for task in run.tasks.values() if task.between_attempts]
    failed = [task for task in run.tasks.values() if task.status is RunTaskStatus.FAILED and not task.kept]
    retried = {task.name: event for task in failed if (event := _another(task, config, at)) is not None}
    if config.fail_fast and any(
        task.name not in retried and not config.tasks[task.name].ignore_failure for task in failed
    ):
        return ()
    return tuple(retried.values())


def _another(task: RunTask, config: RunConfig, at: datetime) -> RunTaskRetried | None:
    """Return the next attempt at a failed task, if there is one."""
    retry = config.tasks[task.name].retry
    if retry is None or task.failure == "" or task.failure not in retry.on or task.attempt > retry.max:
        return None
    attempt = task.attempt + 1
    return RunTaskRetried(task.name, attempt, task.failure, at + backoff(retry, attempt))


def backoff(retry: Retry, attempt: int) -> timedelta:
    """Return the wait before an attempt, from the second on: doubled each time, at most a day."""
    return min(timedelta(microseconds=retry.backoff * 2 ** (attempt - 2) / 1000), MAX_BACKOFF)
