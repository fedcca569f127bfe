"""Compares a log with its archive: at a start by the last archived commit, in `fsck` commit by commit.

The archive may end before the log: the rest is archived next. The log may not end before the archive, nor differ from
it: then one of the two is older than the other, or of another deployment, and nothing is appended to the archive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from runstream.counting import counted
from runstream.datamanager.archive import Archive, batches
from runstream.datamanager.errors import ContradictionError, DamagedArchiveError
from runstream.datamanager.fence import Fence
from runstream.datamanager.status import DataStatus, fingerprint
from runstream.errors import NotExistError
from runstream.feed import next_up_to, read_up_to
from runstream.log.port import RawMessage, ReadableLog
from runstream.projections.fsck import Differences
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.segments import Segment, SegmentDescription, broken_link, content_of, read_segment
from runstream.subjects import aggregate_of


async def require_agreement(
    log: ReadableLog, status: DataStatus, deployment: str, where: str, without: Collection[int] = ()
) -> None:
    """Raise ContradictionError unless the log continues the archive in `where`.

    `deployment` is the id in NATS and the database; partitions in `without` are not compared. Raises InternalError when
    the log cannot be read.
    """
    if status.deployment != deployment:
        raise ContradictionError(
            f"the archive in {where} is of deployment {status.deployment}; NATS and the database are of {deployment}",
            code="otherDeployment",
            details={"archive": status.deployment, "deployment": deployment},
            hint="name the object storage (or the namespace) of this deployment; or move the other deployment's "
            "archive away",
        )
    if len(status.partitions) != log.partitions:
        raise ContradictionError(
            f"the archive in {where} has {counted(len(status.partitions), 'partition')}, the log has {log.partitions}",
            code="otherPartitions",
            details={"archive": len(status.partitions), "log": log.partitions},
            hint="one of them is of another deployment: check the NATS URL, the namespace and the object storage",
        )
    for partition, archived in enumerate(status.partitions):
        if archived.tip is None or partition in without:
            continue
        # The log is append-only, so a log that has the last archived commit at its position has all those before it.
        # A start has no time for more; `fsck` compares every commit.
        end = await log.end(partition, at_least=archived.last)
        last, stream = archived.last, status.subjects.stream(partition)
        if end < last:
            raise ContradictionError(
                f"the log has gone back in time: partition {partition} of stream {stream} ends at {end}, but is "
                f"archived up to {last} in {where}",
                code="logWentBack",
                details={"partition": partition, "log": end, "archive": last},
                hint=ways_out(status, where),
            )
        async with log.read(partition, last - 1) as reader:
            (message,) = await next_up_to(log, partition, reader, last - 1, last, 1)
        if fingerprint(message) != archived.tip.sha256:
            raise ContradictionError(
                f"commit {last} of partition {partition} differs in the log (stream {stream}) than in the archive in "
                f"{where}: they have different histories",
                code="logDiffers",
                details={"partition": partition, "sequence": last},
                hint=ways_out(status, where),
            )


def ways_out(status: DataStatus, where: str) -> str:
    """Say what to do when log and archive have different histories."""
    until = f" as of {status.until:%Y-%m-%d %H:%M:%S} UTC" if status.until is not None else ""
    streams = f"{status.namespace}_{status.service}_{status.epoch}_*"
    return (
        f"(1) restore NATS's newest data and start again; or (2) if the archive is right: delete the streams "
        f"{streams} (or NATS's data directory), and the log is restored from the archive{until}; or (3) if the log is "
        f"right: move {where} away, and the log is archived again"
    )


@dataclass(frozen=True, slots=True)
class ArchiveDifference:
    """A difference between archive and log, or damage to the archive."""

    path: str
    """The object or folder."""
    partition: int | None
    """None for all partitions."""
    first: int
    """The first sequence; 0 for a difference that is not about commits."""
    last: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(slots=True)
class ArchiveReport(Differences[ArchiveDifference]):
    """The result of a comparison of archive and log."""

    commits: int = 0
    """Number of archived commits that were read."""
    segments: int = 0
    until: datetime | None = None
    """Time at which the log stored the newest archived commit; None without commits."""
    behind: dict[int, int] = field(default_factory=dict)
    """Number of commits after the end of the archive, by partition."""

    def lines(self, what: str = "archive") -> list[str]:
        """Return the report as text; `what` is the name of the archive."""
        behind = sum(self.behind.values())
        until = f", up to {self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until is not None else ""
        there = f"{counted(self.commits, 'commit')} in {counted(self.segments, 'segment')}{until}"
        if not self.commits and behind:
            there = "nothing is archived yet"
        return [*self.summary(), f"{what}: {there}, {counted(behind, 'commit')} behind the log: {self.verdict}"]


async def check_archive(
    archive: Archive, log: ReadableLog, deployment: str | None, fence: Fence, partitions: Sequence[int] | None = None
) -> ArchiveReport:
    """Read and hash every archived segment, and compare its commits with the log, in all partitions or in these.

    `deployment` is that of the log, if known. A damaged segment is reported, and the check continues with the next one.
    Memory holds one segment, and a batch of the log. Raises InternalError when log, database or storage fail.
    """
    report = ArchiveReport()
    chosen = range(log.partitions) if partitions is None else partitions
    report.behind = {partition: await log.end(partition) for partition in chosen}
    try:
        status = await _status(archive, fence, report)
    except DamagedArchiveError as error:
        report.add([ArchiveDifference(error.path, None, 0, 0, error.problem)])
        return report
    if status is None:
        return report
    if problem := _mismatch(status, log, deployment):
        path = archive.paths.status(status.generation)
        report.add([ArchiveDifference(path, None, 0, 0, problem)])
        return report
    report.until = status.until
    for partition in chosen:
        await _PartitionCheck(archive, log, partition, report).run(status)
    return report


async def _status(archive: Archive, fence: Fence, report: ArchiveReport) -> DataStatus | None:
    """Return the data status; a missing one is a difference, unless no datamanager has ever written one."""
    taken = await fence.last()
    found = await archive.find_status()
    what = ""
    if found is None and taken:
        what = f"the data status is missing, although a datamanager has written one (generation {taken})"
    elif found is None and await archive.anything() is not None:
        what = "there are objects, but no data status that names them"
    if what:
        report.add([ArchiveDifference(archive.paths.folder, None, 0, 0, what)])
    return found


def _mismatch(status: DataStatus, log: ReadableLog, deployment: str | None) -> str:
    if deployment is not None and status.deployment != deployment:
        return f"it is of deployment {status.deployment}, the log is of {deployment}"
    if len(status.partitions) != log.partitions:
        return f"it has {counted(len(status.partitions), 'partition')}, the log has {log.partitions}"
    return ""


class _SupersededError(Exception):
    """A newer data status replaced this one, and its objects."""

    def __init__(self, newer: DataStatus) -> None:
        super().__init__()
        self.newer = newer


class _PartitionCheck:
    """The comparison of one partition."""

    def __init__(self, archive: Archive, log: ReadableLog, partition: int, report: ArchiveReport) -> None:
        self._archive = archive
        self._log = log
        self._partition = partition
        self._report = report
        self._end = 0
        """Last sequence of the log."""
        self._done = 0
        """Last compared sequence."""
        self._last: RawMessage | None = None
        """The last archived commit that was read."""

    async def run(self, status: DataStatus) -> None:
        """Compare up to the end of the status; continue with a newer one if segments were merged."""
        while True:
            self._end = await self._log.end(self._partition)
            try:
                await self._compare(status)
            except _SupersededError as error:
                status = error.newer
                continue
            except DamagedArchiveError as error:
                self._differs(error.path, 0, 0, error.problem)
            return self._check_end(status)

    async def _compare(self, status: DataStatus) -> None:
        before: SegmentDescription | None = None
        for description in await self._segments(status):
            if description.last > self._done:
                self._check_link(before, description, status)
                await self._compare_segment(description, status)
                self._done = description.last
            before = description

    async def _segments(self, status: DataStatus) -> list[SegmentDescription]:
        """Return all segments in order; report an unreadable list of older ones, and leave those out."""
        named = status.partitions[self._partition]
        lists = [named.segments]
        reference = named.index
        while reference is not None:
            path = self._archive.paths.index(self._partition, reference)
            try:
                index = await self._archive.index(self._partition, reference)
            except DamagedArchiveError as error:
                self._differs(path, 1, reference.last, error.problem)
            except NotExistError:
                await self._missing(status, path, 1, reference.last)
            else:
                lists.append(index.segments)
                reference = index.previous
                continue
            self._done = max(self._done, reference.last)
            break
        return [segment for each in reversed(lists) for segment in each]

    def _check_link(
        self, before: SegmentDescription | None, description: SegmentDescription, status: DataStatus
    ) -> None:
        if (description.partition, description.epoch) != (self._partition, status.epoch):
            problem = f"it is of partition {description.partition} and epoch {description.epoch}"
        elif before is None and description.first != 1:
            # Its predecessors are in a list that could not be read.
            problem = "" if self._done else "its predecessor is missing"
        else:
            problem = broken_link(before, description)
        if problem:
            path = self._archive.paths.status(status.generation)
            self._differs(path, description.first, description.last, problem)

    async def _compare_segment(self, description: SegmentDescription, status: DataStatus) -> None:
        path = self._archive.paths.segment(description)
        try:
            segment = await self._archive.segment(description)
        except NotExistError:
            await self._missing(status, path, description.first, description.last)
        except DamagedArchiveError as error:
            self._differs(path, description.first, description.last, error.problem)
        else:
            self._report.segments += 1
            await self._compare_commits(path, segment)

    async def _compare_commits(self, path: str, segment: Segment) -> None:
        description = segment.description
        archived = read_segment(description, segment.data, self._archive.subjects)
        found = _SegmentComparison()
        try:
            async with self._logged(description.first) as logged:
                async for batch in batches(archived):
                    await asyncio.to_thread(found.take, batch, await logged.take(len(batch)))
                    self._last = batch[-1]
            if (found.events, found.unreadable) != (description.events, description.unreadable):
                self._differs(
                    path, description.first, description.last, "its number of events is not the one that it states"
                )
        except SnapshotError as error:
            at = description.first + error.line - 1
            first, last = (at, at) if error.line else (description.first, description.last)
            self._differs(path, first, last, error.problem)
        self._report.commits += found.commits
        for message in found.different:
            sequence = message.position.sequence
            self._differs(path, sequence, sequence, f"the log has another one of {aggregate_of(message.subject)} there")

    @asynccontextmanager
    async def _logged(self, first: int) -> AsyncIterator[_LogCursor]:
        """Open the log at this sequence."""
        if first > self._end:
            yield _LogCursor(None)
            return
        async with aclosing(read_up_to(self._log, self._partition, self._end, after=first - 1)) as logged:
            yield _LogCursor(logged)

    async def _missing(self, status: DataStatus, path: str, first: int, last: int) -> None:
        """Report a missing object, unless a newer data status replaced this one."""
        newer = await self._archive.find_status()
        if newer is not None and (newer.generation, newer.serial) > (status.generation, status.serial):
            raise _SupersededError(newer)
        self._differs(path, first, last, "it is missing")

    def _check_end(self, status: DataStatus) -> None:
        named = status.partitions[self._partition]
        path = self._archive.paths.status(status.generation)
        self._report.behind[self._partition] = max(self._end - named.last, 0)
        if named.last > self._end:
            self._differs(path, self._end + 1, named.last, f"they are not in the log, which ends at {self._end}")
        at_end = self._last if self._last is not None and self._last.position.sequence == named.last else None
        if at_end is not None and (named.tip is None or named.tip.sha256 != fingerprint(at_end)):
            self._differs(path, named.last, named.last, "the data status names another last commit")

    def _differs(self, path: str, first: int, last: int, problem: str) -> None:
        place = f"{self._log.subjects.epoch}/{self._partition}"
        commits = f"commit {place}/{first}" if first == last else f"commits {place}/{first} to {place}/{last}"
        what = f"{commits}: {problem}" if first else problem
        self._report.add([ArchiveDifference(path, self._partition, first, last, what)])


class _LogCursor:
    """A cursor in the log."""

    def __init__(self, logged: AsyncIterator[list[RawMessage]] | None) -> None:
        self._logged = logged
        self._read: list[RawMessage] = []

    async def take(self, count: int) -> list[RawMessage]:
        """Return the next `count` messages, or those up to the end. Raises EndLostError."""
        while self._logged is not None and len(self._read) < count:
            messages = await anext(self._logged, None)
            if messages is None:
                break
            self._read += messages
        taken, self._read = self._read[:count], self._read[count:]
        return taken


@dataclass(slots=True)
class _SegmentComparison:
    """The comparison of one segment's commits."""

    commits: int = 0
    events: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    different: list[RawMessage] = field(default_factory=list)
    """Archived commits that differ from the log's."""

    def take(self, archived: Sequence[RawMessage], logged: Sequence[RawMessage]) -> None:
        """Compare the next commits; the log may have fewer."""
        for number, message in enumerate(archived):
            content, types = content_of(message)
            self.commits += 1
            self.unreadable += types is None
            for kind in types or ():
                self.events[kind] = self.events.get(kind, 0) + 1
            if number < len(logged) and content_of(logged[number])[0] != content:
                self.different.append(message)
