"""Whether the object storage agrees with the log: what runs refer to is there, and nothing else is.

Objects are listed first, then the log is folded up to its end, then what seems wrong is looked at again: so whatever
is stored or removed meanwhile is no finding. Removals behind the cleaner's mark are not due yet. Memory holds about
a hundred bytes for each object, and the references of all runs that are not deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from runstream.codec import decode
from runstream.counting import counted
from runstream.database.database import Database
from runstream.database.removals import load_mark
from runstream.domain.holders import Holders
from runstream.errors import BadRequestError, NotExistError
from runstream.events.executor_task import ExecutorTaskArchiveStored, ExecutorTaskAssigned, ExecutorTaskLogStored
from runstream.events.run import DataKind, RunCreated, RunDataRemoved, RunDeleted
from runstream.feed import read_up_to
from runstream.ids import attempt_id
from runstream.log.port import Log, RawMessage
from runstream.objects import paths
from runstream.objects.port import Object, ObjectStorage
from runstream.objects.references import Shared, shared_of

MAX_SHOWN = 1000
_BATCH = 1000
_PREFIXES = (f"{paths.LOGS}/", f"{paths.ARCHIVES}/")


@dataclass(slots=True)
class ObjectsReport:
    """The findings about objects."""

    objects: int = 0
    bytes: int = 0
    missing: int = 0
    """Objects without any trace in this storage that runs refer to: the log was imported without them."""
    foreign: int = 0
    """Objects of runs that are not in this log, such as those of another epoch."""
    count: int = 0
    findings: list[str] = field(default_factory=list)
    """The first findings."""

    def add(self, finding: str) -> None:
        """Count a finding, and list it if it is one of the first."""
        self.count += 1
        if len(self.findings) < MAX_SHOWN:
            self.findings.append(finding)

    @property
    def exit_status(self) -> int:
        """0 without findings, else 1."""
        return 1 if self.count else 0

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        hidden = self.count - len(self.findings)
        more = [f"… and {hidden} more"] if hidden else []
        notes = [f"{counted(self.missing, 'object')} of runs not in this storage: imported without them"]
        notes = notes if self.missing else []
        if self.foreign:
            notes.append(f"{counted(self.foreign, 'object')} of runs that are not in this log: of another epoch")
        verdict = f"{counted(self.count, 'difference')}" if self.count else "no difference"
        return [
            *self.findings,
            *more,
            *notes,
            f"{counted(self.objects, 'object')} of runs, {counted(self.bytes, 'byte')}: {verdict}",
        ]


@dataclass(frozen=True, slots=True)
class _Stored:
    kind: DataKind
    run_task: str
    attempt: int
    step: int | None

    @property
    def shared(self) -> Shared:
        return Shared(self.kind, attempt_id(self.run_task, self.attempt))

    @property
    def path(self) -> str:
        stored = attempt_id(self.run_task, self.attempt)
        if self.kind == "archives" and self.step is not None:
            return paths.archive(stored, self.step)
        return paths.step_log(stored, self.step)


class _Expected:
    """What the log says about objects."""

    def __init__(self) -> None:
        self.held = Holders()
        """As of the end of the log."""
        self.allowed = Holders()
        """With what the cleaner has still to remove."""
        self.runs: set[str] = set()
        self.stored: dict[str, _Stored] = {}
        """By path."""
        self.known: set[str] = set()
        """All run tasks."""
        self._tasks: dict[str, tuple[str, int]] = {}

    def take(self, message: RawMessage, mark: int) -> None:
        try:
            commit = decode(message).commit
        except BadRequestError:
            return  # an unreadable commit refers to nothing
        key = commit.address.id
        for event in commit.events:
            self.held.take(key, event)
            if message.position.sequence <= mark or not isinstance(event, RunDataRemoved | RunDeleted):
                self.allowed.take(key, event)
            match event:
                case RunCreated():
                    self.runs.add(key)
                case ExecutorTaskAssigned(run_task_id=run_task, attempt=attempt):
                    self._tasks[key] = (run_task, attempt)
                    self.known.add(run_task)
                case ExecutorTaskLogStored(step=step) if key in self._tasks:
                    self._add(_Stored("logs", *self._tasks[key], step))
                case ExecutorTaskArchiveStored(step=step) if key in self._tasks:
                    self._add(_Stored("archives", *self._tasks[key], step))
                case _:
                    pass

    def _add(self, stored: _Stored) -> None:
        self.stored[stored.path] = stored


class ObjectsCheck:
    """The comparison of an object storage with the log."""

    def __init__(self, log: Log, objects: ObjectStorage, database: Database) -> None:
        self._log = log
        self._objects = objects
        self._database = database

    async def run(self) -> ObjectsReport:
        """Compare. Raises InternalError when log, storage or database fail."""
        report = ObjectsReport()
        data: set[str] = set()
        references: dict[Shared, list[Object]] = {}
        # Marks first: what the cleaner removes later than this is looked at again.
        marks = [await load_mark(self._database, self._log.subjects, p) for p in range(self._log.partitions)]
        for prefix in _PREFIXES:
            async for found in self._objects.list(prefix):
                report.objects += 1
                report.bytes += found.size
                shared = _shared(found.path)
                if shared is None:
                    report.add(f"{found.path}: not the path of a log or an archive")
                elif found.path.startswith(shared.data):
                    data.add(found.path)
                else:
                    references.setdefault(shared, []).append(found)
        expected = await self._expected(marks)
        own = {path for path in data if _run_task(shared_of(path)) in expected.known}
        report.foreign = len(data) - len(own)
        findings = [*_of_data(own, references, expected), *_of_references(references, expected)]
        for path, finding in findings:
            if await self._exists(path):
                report.add(finding)
        for path, stored in expected.stored.items():
            if path not in data and expected.held.held(stored.run_task, stored.kind) and not await self._exists(path):
                if stored.shared in references:
                    report.add(f"{path}: missing, {_runs(expected.held.of(stored.run_task, stored.kind))} to it")
                else:
                    report.missing += 1
        return report

    async def _expected(self, marks: Sequence[int]) -> _Expected:
        expected = _Expected()
        for partition, mark in enumerate(marks):
            prefix = self._log.subjects.prefix(partition)
            end, filters = await self._log.end(partition), [f"{prefix}.run.>", f"{prefix}.task.>"]
            async for messages in read_up_to(self._log, partition, end, filters=filters, limit=_BATCH):
                for message in messages:
                    expected.take(message, mark)
        return expected

    async def _exists(self, path: str) -> bool:
        try:
            await self._objects.stat(path)
        except NotExistError:
            return False
        return True


def _of_references(references: dict[Shared, list[Object]], expected: _Expected) -> Iterator[tuple[str, str]]:
    for shared, found in references.items():
        holders = expected.allowed.of(_run_task(shared), shared.kind)
        for one in found:
            run_id = one.path.removeprefix(shared.references)
            if run_id in expected.runs and run_id not in holders:
                yield one.path, f"{one.path}: a reference of a run that does not refer to it"


def _of_data(
    data: Collection[str], references: dict[Shared, list[Object]], expected: _Expected
) -> Iterator[tuple[str, str]]:
    for path in data:
        shared = shared_of(path)
        if not expected.allowed.held(_run_task(shared), shared.kind):
            yield path, f"{path}: no run refers to it"
        elif shared not in references:
            runs = _runs(expected.allowed.of(_run_task(shared), shared.kind))
            yield path, f"{path}: without a reference, though {runs} to it"


def _shared(path: str) -> Shared | None:
    try:
        return shared_of(path)
    except BadRequestError:
        return None


def _run_task(shared: Shared) -> str:
    """Return the run task of stored data, whatever its attempt; a run task's id has 36 characters."""
    return shared.stored[:36]


def _runs(runs: frozenset[str]) -> str:
    first, *others = sorted(runs)
    more = f" and {counted(len(others), 'other run')} refer" if others else " refers"
    return f"run {first}{more}"
