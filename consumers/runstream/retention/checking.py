"""Whether the object storage agrees with the log: what runs refer to is there, and nothing else is.

Objects are listed first, then the log is folded up to its end, then what seems wrong is looked at again: so whatever
is stored or removed meanwhile is no finding. Removals behind the cleaner's mark are not due yet. Memory holds about
a hundred bytes for each object, and the references of all runs that are not deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runstream.counting import counted
from runstream.database.database import Database
from runstream.database.removals import load_marks
from runstream.errors import NotExistError
from runstream.log.port import Log
from runstream.objects.port import ObjectStorage
from runstream.objects.references import GRACE, Shared, shared_of
from runstream.retention.referring import Referring, StoredObjects, fold_referring, list_stored, run_task_of

MAX_SHOWN = 1000


@dataclass(slots=True)
class ObjectsReport:
    """The findings about objects."""

    objects: int = 0
    bytes: int = 0
    missing: int = 0
    """Objects without any trace in this storage that runs refer to: the log was imported without them."""
    foreign: int = 0
    """Data and references of runs that are not in this log, such as those of another epoch."""
    unreferenced: int = 0
    """Those of them that are data without any reference: an import has just stored them, or did not end."""
    first_unreferenced: str = ""
    """The path of one of these."""
    uncreated: int = 0
    """References of runs that are not in the log to data of this log: being created, or never created."""
    first_uncreated: str = ""
    """The path of one of these."""
    uncreated_until: datetime | None = None
    """When the cleaner removes the last of these, unless its run is created."""
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
            notes.append(f"{counted(self.foreign, 'object')} of runs that are not in this log, as of another epoch")
        if self.unreferenced:
            without = f"{counted(self.unreferenced, 'object')} of these without a reference"
            notes.append(f"{without}, such as {self.first_unreferenced}: unused, unless an import is under way")
        if self.uncreated and self.uncreated_until is not None:
            notes.append(
                f"{counted(self.uncreated, 'reference')} of runs being created, or never created because a gateway was "
                f"killed, such as {self.first_uncreated}: nothing is lost, the cleaner removes what is left at "
                f"{self.uncreated_until:%Y-%m-%d %H:%M:%S} UTC"
            )
        verdict = f"{counted(self.count, 'difference')}" if self.count else "no difference"
        return [
            *self.findings,
            *more,
            *notes,
            f"{counted(self.objects, 'object')} of runs, {counted(self.bytes, 'byte')}: {verdict}",
        ]


class ObjectsCheck:
    """The comparison of an object storage with the log."""

    def __init__(self, log: Log, objects: ObjectStorage, database: Database) -> None:
        self._log = log
        self._objects = objects
        self._database = database

    async def run(self) -> ObjectsReport:
        """Compare. Raises InternalError when log, storage or database fail."""
        report = ObjectsReport()
        # Marks first: what the cleaner removes later than this is looked at again.
        marks = await load_marks(self._database, self._log.subjects)
        stored = await list_stored(self._objects)
        report.objects, report.bytes = stored.objects, stored.bytes
        for path in stored.unknown:
            report.add(f"{path}: not the path of a log or an archive")
        referring = await fold_referring(self._log, marks)
        own = {path for path in stored.data if run_task_of(shared_of(path)) in referring.known}
        report.foreign = len(stored.data) - len(own)
        await self._count_unknown_runs(stored, referring, report)
        findings = [*_of_data(own, referring), *_of_references(stored, referring)]
        for path, finding in findings:
            if await self._exists(path):
                report.add(finding)
        for path in sorted(stored.data - own):
            shared = shared_of(path)
            if shared not in stored.references and await self._exists(path) and not await self._is_referred(shared):
                report.unreferenced += 1
                report.first_unreferenced = report.first_unreferenced or path
        if marks:  # else the cleaner has still to store the references of this epoch
            for shared, run_id in referring.without_reference(stored):
                if not await self._exists(path := shared.reference(run_id)):
                    report.add(f"{path}: missing, though the run refers to {shared.data}")
        for path, one in referring.stored.items():
            runs = referring.held.of(one.run_task, one.kind)
            if path not in stored.data and runs and not await self._exists(path):
                if one.shared in stored.references:
                    report.add(f"{path}: missing, {_runs(runs)} to it")
                else:
                    report.missing += 1
        return report

    async def _count_unknown_runs(self, stored: StoredObjects, referring: Referring, report: ObjectsReport) -> None:
        """Count references of runs that are not in the log, as the cleaner removes them (`UncreatedRuns`), or not."""
        with_data = {shared_of(path) for path in stored.data}
        for shared, runs in stored.references.items():
            unknown = sorted(runs - referring.runs)
            if shared in with_data and run_task_of(shared) not in referring.known:
                report.foreign += len(unknown)
                continue
            for path in map(shared.reference, unknown):
                with suppress(NotExistError):  # removed meanwhile
                    until = (await self._objects.stat(path)).modified.astimezone(UTC) + GRACE
                    report.uncreated += 1
                    report.first_uncreated = report.first_uncreated or path
                    report.uncreated_until = max(report.uncreated_until or until, until)

    async def _is_referred(self, shared: Shared) -> bool:
        async for _ in self._objects.list(shared.references):
            return True
        return False

    async def _exists(self, path: str) -> bool:
        try:
            await self._objects.stat(path)
        except NotExistError:
            return False
        return True


def _of_references(stored: StoredObjects, referring: Referring) -> Iterator[tuple[str, str]]:
    for shared, runs in stored.references.items():
        holders = referring.allowed.of(run_task_of(shared), shared.kind)
        for run_id in runs & referring.runs - holders:
            path = shared.reference(run_id)
            yield path, f"{path}: a reference of a run that does not refer to it"


def _of_data(own: Collection[str], referring: Referring) -> Iterator[tuple[str, str]]:
    for path in own:
        shared = shared_of(path)
        runs = referring.allowed.of(run_task_of(shared), shared.kind)
        if not runs:
            yield path, f"{path}: no run refers to it"


def _runs(runs: frozenset[str]) -> str:
    first, *others = sorted(runs)
    more = f" and {counted(len(others), 'other run')} refer" if others else " refers"
    return f"run {first}{more}"
