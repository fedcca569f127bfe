"""What the log of events says about the log of a step: whether it may still come, and when it is an object.

Folded from the commits of the executor task and of its run, so that whoever waits is woken by what happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from runstream.codec import decode
from runstream.commits import StoredCommit
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
from runstream.folding import UnfitCommitError, fold_executor_task
from runstream.log.port import Log
from runstream.subjects import Address, StepLogKey

_OPEN_ATTEMPTS = 60
_OPEN_SECONDS = 0.5
"""How often, and after what pause, a log that is away is asked again."""


@dataclass(slots=True)
class Fate:
    """What is known of the step whose log is read."""

    key: StepLogKey
    exists: bool = False
    """Whether its run exists."""
    run_over: bool = False
    """Whether the task will never be assigned, if it is not yet."""
    task: ExecutorTask | None = None
    versions: int = 0
    """How many commits of the executor task were applied."""

    @property
    def step(self) -> StepState | None:
        """The step, once its task is assigned; None for a step that the task does not have."""
        if self.task is None:
            return None
        if self.key.step is None:
            return self.task.setup_step
        return self.task.steps[self.key.step] if 0 <= self.key.step < len(self.task.steps) else None

    @property
    def settled(self) -> bool:
        """Whether its log is an object now, or is known to be lost."""
        return self.step is not None and self.step.log_settled

    @property
    def over(self) -> bool:
        """Whether nothing more will be written, and what was written is stored or lost."""
        if self.task is None:
            return self.run_over or not self.exists
        if self.step is None or self.settled:
            return True
        return not self.task.open and (self.task.lost or self.step.start_time is None)

    def apply(self, stored: StoredCommit) -> None:
        """What a commit says; one that was applied already is left out."""
        commit = stored.commit
        if commit.address.kind == "task":
            if commit.version == self.versions + 1:
                self.versions = commit.version
                with contextlib.suppress(UnfitCommitError):  # parked where it is projected; a log can do without
                    self.task = fold_executor_task(self.task, commit) if commit.events else self.task
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


async def load(log: Log, key: StepLogKey) -> tuple[Fate, int]:
    """What is known now, and behind which sequence of the partition to watch for more."""
    after = await log.end(key.partition)
    fate = Fate(key)
    for address in _addresses(key):
        for stored in await log.history(address):
            fate.apply(stored)
    return fate, after


async def watch(log: Log, fate: Fate, after: int, changed: Callable[[], None]) -> None:
    """Apply what happens, for ever, and say so each time. Raises InternalError when the log stays away."""
    for attempt in range(1, _OPEN_ATTEMPTS + 1):
        try:
            await _watch(log, fate, after, changed)
        except InternalError:
            if attempt == _OPEN_ATTEMPTS:
                raise
            # Beginning again behind the same sequence is fine: what was applied is left out.
            await asyncio.sleep(_OPEN_SECONDS)


async def _watch(log: Log, fate: Fate, after: int, changed: Callable[[], None]) -> None:
    filters = [log.subjects.guard(address) for address in _addresses(fate.key)]
    async with log.read(fate.key.partition, after, filters=filters) as reader:
        while True:
            for message in await reader.next_batch():
                try:
                    fate.apply(decode(message))
                except BadRequestError:  # it is parked where it is projected; a log can do without it
                    continue
            changed()


def _addresses(key: StepLogKey) -> list[Address]:
    task = [Address(key.partition, "task", key.executor_task_id)] if key.executor_task_id else []
    return [*task, Address(key.partition, "run", key.run_id)]
