"""What the gateway needs of others, as small as it can be said.

Appending is `runstream.log`; here are the questions that are asked of the projection, and the logs of steps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from runstream.commits import LogPosition, Position
from runstream.database.runs import ExecutorRecord, RunPage, RunQuery, RunRecord
from runstream.domain.executor import Sighting
from runstream.events.run_config import RunConfig
from runstream.jetstream.questions import NoAnswer


@dataclass(frozen=True, slots=True)
class StepLogKey:
    """Which log of which task of a run."""

    partition: int
    """Of the run, in the log."""
    run_id: str
    task: str
    """The task's name."""
    stored_id: str
    """Names the stored object: a run that keeps a task of an earlier one shares its logs."""
    executor_task_id: str
    """Names the live log; empty for a task that was kept and never ran."""
    step: int | None
    """None is the setup step."""


class StepLogs(Protocol):
    """Where the logs of steps are read: live while they are written, then the stored object."""

    async def open(self, key: StepLogKey, *, follow: bool, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of a log from an offset on, each once; none where the log ends before it.

        With `follow` it may have nothing yet, and ends when the log does. Without, it ends with what there is
        now; raises NotExistError, before anything is read, when there is no such log.
        """
        ...

    async def tail(self, key: StepLogKey, lines: int) -> int:
        """Return the offset at which the last lines of what is written now begin."""
        ...


class SharedData(Protocol):
    """The stored logs and archives, of which several runs may share one."""

    async def refer(self, run_id: str, *, logs: Sequence[str], archives: Sequence[str]) -> None:
        """Say that a run refers to the logs, and to the archives, of these ids; durable when this returns.

        Nothing is deleted that a run refers to. Raises InternalError when the storage cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """What steps leave in the object storage."""

    logs: StepLogs
    shared: SharedData


@dataclass(frozen=True, slots=True)
class ReadRun:
    """A run as the projection has it, and what it is to do."""

    record: RunRecord
    config: RunConfig


class PastRuns(Protocol):
    """What runs were, told by the log."""

    async def run(self, run_id: str, point: LogPosition | Position | datetime) -> ReadRun:
        """One run as it was. Raises NotExistError when there was none, BadRequestError for no point of this log."""
        ...


class Asking(Protocol):
    """Questions to other components (`runstream.jetstream.questions.Questions`)."""

    async def ask(self, subject: str, question: bytes, seconds: float) -> bytes | NoAnswer:
        """The answer, waited for so long at most."""
        ...


class Sightings(Protocol):
    """The leases of executors (`runstream.gateway.sighting.ExecutorSightings`)."""

    async def seen(self) -> Mapping[str, Sighting]:
        """Every executor that holds its lease, by id. Raises UnavailableError."""
        ...


class Reads(Protocol):
    """What the projection tells. Each waits, bounded, until it includes `at_least`."""

    async def run(self, run_id: str, at_least: Sequence[Position]) -> ReadRun:
        """One run. Raises NotExistError."""
        ...

    async def run_by_counter(self, group: str, counter: int, at_least: Sequence[Position]) -> ReadRun:
        """The run of this number in the group. Raises NotExistError."""
        ...

    async def runs(self, query: RunQuery, at_least: Sequence[Position]) -> RunPage:
        """A page of runs."""
        ...

    async def executors(self, at_least: Sequence[Position]) -> tuple[ExecutorRecord, ...]:
        """All executors that were not deleted."""
        ...
