"""The state of a step's log according to the event log: whether it may still grow, and when it is an object.

The state is folded from the commits of the executor task and its run, so a waiting reader wakes with each commit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from runstream.backoff import Backoff, retry
from runstream.codec import decode
from runstream.commits import Head, StoredCommit
from runstream.domain.executor_task import ExecutorTask, StepState
from runstream.errors import BadRequestError, InternalError
from runstream.events.run import (
    RunCancelled,
    RunFinished,
    RunRestarted,
    RunTaskRetryDropped,
    RunTasksCancelled,
    RunTasksSkipped,
)
from runstream.folding import fold_if_fit, follows
from runstream.log.port import Log
from runstream.subjects import Address, StepLogKey

_BACKOFF = Backoff(0.5, attempts=60)


CUT_OFF = "The log is cut off here: the executor did not finish the step."
"""Last line of the log of a step that a lost executor began."""


@dataclass(slots=True)
class LogState:
    """The state of a step's log."""

    key: StepLogKey
    exists: bool = False
    """True if the run exists."""
    run_over: bool = False
    """True if an unassigned task will never be assigned."""
    task: ExecutorTask | None = None
    head: Head = field(default_factory=Head)
    """The last applied commit of the executor task."""

    @property
    def step(self) -> StepState | None:
        """The step of an assigned task; None for a step that the task does not have."""
        if self.task is None:
            return None
        if self.key.step is None or self.key.step < 0:
            return self.task.setup_step
        return self.task.steps[self.key.step] if 0 <= self.key.step < len(self.task.steps) else None

    @property
    def _of_service(self) -> bool:
        """True for the log of a service, which lasts as long as the task, and is stored before its end."""
        return self.key.step is not None and self.key.step < 0

    @property
    def settled(self) -> bool:
        """True once the log is an object, or known to be lost."""
        return self.step is not None and self.step.log_settled and not self._of_service

    @property
    def over(self) -> bool:
        """True once the log cannot grow, and every written byte is stored or lost."""
        if self.task is None:
            return self.run_over or not self.exists
        if self._of_service:
            return not self.task.open
        if self.step is None or self.settled:
            return True
        return not self.task.open and (self.task.lost or self.step.start_time is None)

    @property
    def lost(self) -> bool:
        """True while the log is on an executor that is lost: the live log may have its beginning."""
        return self.task is not None and self.task.lost and self.step is not None and not self.settled

    def apply(self, stored: StoredCommit) -> None:
        """Apply a commit, unless it is applied already."""
        commit = stored.commit
        if commit.address.kind == "task":
            if follows(self.head, stored):
                self.head = Head(commit.version, stored.position.sequence)
                self.task, _ = fold_if_fit(self.task, commit)
            return
        self.exists = True
        for happened in commit.events:
            match happened:
                case RunFinished() | RunCancelled():
                    self.run_over = True
                case RunTasksSkipped(tasks) | RunTasksCancelled(tasks):
                    self.run_over = self.run_over or self.key.task in tasks
                case RunTaskRetryDropped(task) if task == self.key.task:
                    self.run_over = True
                case RunRestarted(kept=kept):
                    self.run_over = self.run_over or any(task.task == self.key.task for task in kept)
                case _:
                    pass


async def load(log: Log, key: StepLogKey) -> tuple[LogState, int]:
    """Return the current state, and the sequence of the partition after which to watch for changes."""
    after = await log.end(key.partition)
    state = LogState(key)
    for address in _addresses(key):
        for stored in await log.history(address):
            state.apply(stored)
    return state, after


async def watch(log: Log, state: LogState, after: int, changed: Callable[[], None]) -> None:
    """Apply new commits until cancelled, and call `changed` after each batch.

    Raises InternalError when the log stays away.
    """
    # Restarting after the same sequence is safe: `apply` skips applied commits.
    await retry(lambda: _watch(log, state, after, changed), InternalError, _BACKOFF)


async def _watch(log: Log, state: LogState, after: int, changed: Callable[[], None]) -> None:
    filters = [log.subjects.guard(address) for address in _addresses(state.key)]
    async with log.read(state.key.partition, after, filters=filters) as reader:
        while True:
            for message in await reader.next_batch():
                try:
                    state.apply(decode(message))
                except BadRequestError:  # the projection parks it; reading a log does not depend on it
                    continue
            changed()


def _addresses(key: StepLogKey) -> list[Address]:
    task = [Address(key.partition, "task", key.executor_task_id)] if key.executor_task_id else []
    return [*task, Address(key.partition, "run", key.run_id)]
