"""Which runs refer to which logs and archives: by the log of this epoch, and by the references in the storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from runstream.codec import decode
from runstream.counting import counted
from runstream.domain.holders import Holders
from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.events.executor_task import ExecutorTaskArchiveStored, ExecutorTaskAssigned, ExecutorTaskLogStored
from runstream.events.run import DataKind, RunCreated, RunDataRemoved, RunDeleted, RunRestarted
from runstream.feed import read_up_to
from runstream.ids import attempt_id
from runstream.log.port import Log, RawMessage
from runstream.objects import paths
from runstream.objects.port import ObjectStorage
from runstream.objects.references import Shared, drop_reference, shared_of

log = structlog.get_logger()
_BATCH = 1000
_PREFIXES = (f"{paths.LOGS}/", f"{paths.ARCHIVES}/")
_NO_MARKS: Mapping[int, int] = {}


@dataclass(slots=True)
class StoredObjects:
    """The logs and archives of a storage, and the references to them."""

    objects: int = 0
    bytes: int = 0
    data: set[str] = field(default_factory=set)
    """Paths."""
    references: dict[Shared, set[str]] = field(default_factory=dict)
    """Ids of runs."""
    unknown: list[str] = field(default_factory=list)
    """Paths that are not of a log or an archive."""


@dataclass(frozen=True, slots=True)
class StoredData:
    """A log or an archive that an event says is stored."""

    kind: DataKind
    run_task: str
    attempt: int
    step: int | None

    @property
    def shared(self) -> Shared:
        """Return the data that it belongs to."""
        return Shared(self.kind, attempt_id(self.run_task, self.attempt))

    @property
    def path(self) -> str:
        """Return its path."""
        stored = attempt_id(self.run_task, self.attempt)
        if self.kind == "archives" and self.step is not None:
            return paths.archive(stored, self.step)
        return paths.step_log(stored, self.step)


class Referring:
    """What the log says about objects."""

    def __init__(self) -> None:
        self.held = Holders()
        """What was referred to at the end of the log."""
        self.allowed = Holders()
        """The same, with what the cleaner has still to remove."""
        self.runs: set[str] = set()
        self.stored: dict[str, StoredData] = {}
        """The stored data, by its path."""
        self.known: set[str] = set()
        """All run tasks."""
        self._tasks: dict[str, tuple[str, int]] = {}
        self._kept: dict[tuple[str, str], int] = {}
        """By restart and run task: the attempt that it keeps."""

    def take(self, message: RawMessage, mark: int) -> None:
        """Apply a commit; the cleaner has removed what those up to the mark release."""
        try:
            commit = decode(message).commit
        except BadRequestError:
            return  # an unreadable commit refers to nothing
        key = commit.address.id
        for event in commit.events:
            self.held.take(key, event)
            if message.position.sequence <= mark or not isinstance(event, RunDataRemoved | RunDeleted):
                self.allowed.take(key, event)
            self._take(key, event)

    def _take(self, key: str, event: DomainEvent) -> None:
        match event:
            case RunCreated():
                self.runs.add(key)
            case RunRestarted(kept=kept):
                self._kept |= {(key, task.id): task.attempt for task in kept if task.executor_task_id}
            case ExecutorTaskAssigned(run_task_id=run_task, attempt=attempt):
                self._tasks[key] = (run_task, attempt)
                self.known.add(run_task)
            case ExecutorTaskLogStored(step=step) if key in self._tasks:
                self._add(StoredData("logs", *self._tasks[key], step))
            case ExecutorTaskArchiveStored(step=step) if key in self._tasks:
                self._add(StoredData("archives", *self._tasks[key], step))
            case _:
                pass

    def _add(self, stored: StoredData) -> None:
        self.stored[stored.path] = stored

    def without_reference(self, stored: StoredObjects) -> Iterator[tuple[Shared, str]]:
        """Yield the data in the storage to which a run refers without having its reference, and that run."""
        for shared in {shared_of(path) for path in stored.data}:
            there = stored.references.get(shared, set())
            for run_id in self.held.of(run_task_of(shared), shared.kind) - there:
                kept = self._kept.get((run_id, run_task_of(shared)))
                # A restart has the logs of all attempts, but the archives of the last one.
                if kept is None or shared.kind == "logs" or attempt_id(run_task_of(shared), kept) == shared.stored:
                    yield shared, run_id


def run_task_of(shared: Shared) -> str:
    """Return the run task of stored data, whatever its attempt; a run task's id has 36 characters."""
    return shared.stored[:36]


async def list_stored(objects: ObjectStorage) -> StoredObjects:
    """List the logs and archives of a storage. Raises InternalError when it fails."""
    stored = StoredObjects()
    for prefix in _PREFIXES:
        async for found in objects.list(prefix):
            stored.objects += 1
            stored.bytes += found.size
            try:
                shared = shared_of(found.path)
            except BadRequestError:
                stored.unknown.append(found.path)
                continue
            if found.path.startswith(shared.data):
                stored.data.add(found.path)
            else:
                stored.references.setdefault(shared, set()).add(found.path.removeprefix(shared.references))
    return stored


async def fold_referring(log: Log, marks: Mapping[int, int] = _NO_MARKS) -> Referring:
    """Fold the log up to its end; `marks` are the cleaner's, by partition. Raises InternalError when it fails."""
    referring = Referring()
    for partition in range(log.partitions):
        prefix = log.subjects.prefix(partition)
        end, filters = await log.end(partition), [f"{prefix}.run.>", f"{prefix}.task.>"]
        async for messages in read_up_to(log, partition, end, filters=filters, limit=_BATCH):
            for message in messages:
                referring.take(message, marks.get(partition, 0))
    return referring


async def restore_references(run_log: Log, objects: ObjectStorage, clock: Callable[[], datetime]) -> int:
    """Store the references that runs of the log do not have to data that is there; return their number.

    Raises InternalError when log or storage fail; it can then be repeated. As a restart does, it writes first and looks
    then: a run may be deleted, and its references dropped, meanwhile.
    """
    stored = await list_stored(objects)
    if not stored.data:
        return 0
    referring = await fold_referring(run_log)
    missing = list(referring.without_reference(stored))
    for first in range(0, len(missing), _BATCH):
        await objects.write_all({shared.reference(run_id): b"" for shared, run_id in missing[first : first + _BATCH]})
    if missing:
        await _drop_released(missing, await fold_referring(run_log), objects, clock())
        log.info(
            f"Stored {counted(len(missing), 'reference')} that runs of this epoch did not have",
            action="references_restored",
            references=len(missing),
        )
    return len(missing)


async def _drop_released(
    written: Sequence[tuple[Shared, str]], referring: Referring, objects: ObjectStorage, now: datetime
) -> None:
    """Drop the references of runs that no longer refer to the data."""
    for shared, run_id in written:
        held = referring.held.of(run_task_of(shared), shared.kind)

        async def holds(other: str, _: DataKind, held: frozenset[str] = held) -> bool | None:
            return other in held or (False if other in referring.runs else None)

        if run_id not in held:
            await drop_reference(objects, shared, run_id, holds, now)
