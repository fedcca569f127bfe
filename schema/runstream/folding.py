"""Folds commits into aggregates; any exception while folding an event becomes one error, which leads to parking.

Each event is valid on its own, but in an order that no decision produces it may refer to a missing object, such as a
step of a task. All folds are here, so that a commit that the projection parks crashes no executor or timer.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TypeVar, cast

from runstream.commits import DecodedCommit, Head, StoredCommit
from runstream.domain import executor as executors
from runstream.domain import executor_task as executor_tasks
from runstream.domain.executor import RegisteredExecutor
from runstream.domain.executor_task import ExecutorTask
from runstream.errors import ConflictError
from runstream.events.executor import ExecutorEvent
from runstream.events.executor_task import ExecutorTaskAssigned, ExecutorTaskEvent

T = TypeVar("T", bound="ExecutorTask | None")
MAX_STEPS = 10_000
"""Maximum number of steps in an assignment; folding it creates them."""


class UnfitCommitError(ConflictError):
    """A commit does not fit the state before it."""

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(
            message,
            code="unfitCommit",
            details=details,
            hint="`runstream parked list` shows such commits; `runstream parked skip` goes on without one",
        )


class fitting:  # noqa: N801  it reads as `with fitting(commit)`
    """A context that turns any exception of folding the commit into an UnfitCommitError.

    A class, because each commit of the log passes here: it takes a third of the time of a generator.
    """

    __slots__ = ("_commit",)

    def __init__(self, commit: DecodedCommit) -> None:
        self._commit = commit

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, UnfitCommitError):
            return
        raise UnfitCommitError(
            f"the commit does not fit its aggregate: {type(error).__name__}: {error}",
            aggregate=self._commit.address.aggregate,
            version=self._commit.version,
        ) from error


def fold_executor_task(task: ExecutorTask | None, commit: DecodedCommit) -> ExecutorTask:
    """Return the executor task after a commit of its own. Raises UnfitCommitError."""
    with fitting(commit):
        for event in cast("tuple[ExecutorTaskEvent, ...]", commit.events):
            if isinstance(event, ExecutorTaskAssigned):
                if event.steps > MAX_STEPS:
                    raise ValueError(f"steps must be at most {MAX_STEPS} (got {event.steps})")
                task = executor_tasks.assigned(commit.address.id, event)
            elif task is None:
                raise UnfitCommitError(f"{commit.address.aggregate} does not begin with its assignment")
            else:
                task = executor_tasks.evolve(task, event)
    if task is None:
        raise UnfitCommitError(f"{commit.address.aggregate} has no events")
    return task


def executor_task_of(history: Iterable[StoredCommit]) -> ExecutorTask | None:
    """Return the executor task after its history, up to a commit that does not fit; None without commits."""
    task: ExecutorTask | None = None
    for stored in history:
        task, unfit = fold_if_fit(task, stored.commit)
        if unfit is not None:
            break
    return task


def fold_if_fit(task: T, commit: DecodedCommit) -> tuple[ExecutorTask | T, UnfitCommitError | None]:
    """Return the executor task after a commit of its own; unchanged, with the error, if the commit does not fit.

    The projection parks such a commit. A skipped one has no events, and changes nothing.
    """
    try:
        return fold_executor_task(task, commit) if commit.events else task, None
    except UnfitCommitError as error:
        return task, error


def follows(head: Head, stored: StoredCommit) -> bool:
    """Return whether a commit is the next one of its aggregate, or a later skipped one, which sets the version."""
    commit = stored.commit
    return commit.version == head.version + 1 or (not commit.events and stored.position.sequence > head.sequence)


def fold_executor(executor: RegisteredExecutor | None, commit: DecodedCommit) -> RegisteredExecutor:
    """Return the executor after a commit of its own. Raises UnfitCommitError."""
    with fitting(commit):
        for event in cast("tuple[ExecutorEvent, ...]", commit.events):
            executor = executors.evolve(executor, commit.address.id, event, commit.time)
    if executor is None:
        raise UnfitCommitError(f"{commit.address.aggregate} was never registered")
    return executor
