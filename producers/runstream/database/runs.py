"""What the projection tells about runs, tasks and executors; each question is one function of a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from runstream.commits import Head, Position
from runstream.database.transaction import Transaction
from runstream.domain.executor import Executor
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import Run, RunPhase
from runstream.events.run import RunResult
from runstream.events.run_config import RunConfig

DEFAULT_LIMIT = 25
MAX_LIMIT = 40


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run with its tasks, and the executor task of each task that has one."""

    run: Run
    head: Head
    partition: int
    executor_tasks: dict[str, ExecutorTask]
    """By task name; its steps are the steps of the task."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as lists show it, without its tasks."""

    id: str
    sequence: int
    counter: int
    group: str
    name: str
    run_config: str
    annotations: dict[str, str]
    setup_errors: tuple[str, ...]
    phase: RunPhase
    result: RunResult
    stop: bool
    enqueue_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    archived: bool
    tasks_waiting_approval: tuple[str, ...]
    """Names, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs to list. What is empty does not filter."""

    groups: Sequence[str] = ()
    """Each names itself and everything below it: `/project/a` has `/project/a/branch/b`, but not `/project/ab`."""
    phases: Iterable[RunPhase] = ()
    results: Iterable[RunResult] = ()
    last_run: bool = False
    """Of the runs that match, only the last one of each group."""
    start: int = 0
    """Begin behind the run of this sequence; 0 for the first."""
    limit: int = DEFAULT_LIMIT
    """1 to 40."""
    ascending: bool = False


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs in the order asked for."""

    runs: tuple[RunSummary, ...] = field(default=())
    next_start: int | None = None
    """The `start` of the next page; None when there is none."""


@dataclass(frozen=True, slots=True)
class ExecutorRecord:
    """An executor, and how many of its tasks are open."""

    executor: Executor
    head: Head
    partition: int
    open_tasks: int


async def get_run(transaction: Transaction, run_id: str) -> RunRecord:
    """The run. Raises NotExistError."""
    raise NotImplementedError


async def get_run_by_counter(transaction: Transaction, group: str, counter: int) -> RunRecord:
    """The run of this number in the root of the group, if it is in the group or below. Raises NotExistError."""
    raise NotImplementedError


async def list_runs(transaction: Transaction, query: RunQuery) -> RunPage:
    """The runs that match, by sequence. Raises BadRequestError for a limit that is out of bounds."""
    raise NotImplementedError


async def get_run_config(transaction: Transaction, partition: int, content_hash: str) -> RunConfig:
    """The run config (it is on the partition of its runs). Raises NotExistError."""
    raise NotImplementedError


async def list_executors(transaction: Transaction) -> tuple[ExecutorRecord, ...]:
    """All executors that were not deleted, by id."""
    raise NotImplementedError


async def get_executor(transaction: Transaction, executor_id: str) -> ExecutorRecord:
    """The executor, also one that is lost; not a deleted one. Raises NotExistError."""
    raise NotImplementedError


async def get_positions(transaction: Transaction) -> dict[int, Position]:
    """How far each partition is projected."""
    raise NotImplementedError
