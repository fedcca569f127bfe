"""An export: the log as of one position of each partition, as one stream, while everybody goes on.

The positions are taken once, at the beginning. All partitions are read side by side; hashing and compressing is done
in threads. Memory holds a few segments, whatever the size of the log, and waits for whoever takes the stream.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from runstream.commits import LogPosition
from runstream.errors import BadRequestError
from runstream.glance import time_of
from runstream.log.port import RawMessage, ReadableLog
from runstream.release import version
from runstream.snapshots import manifest as m
from runstream.snapshots.container import END, header, padding
from runstream.snapshots.manifest import Manifest, ObjectKind, ObjectList, ParkedCommit, SnapshotHeader
from runstream.snapshots.referenced import Referenced
from runstream.snapshots.segments import Segment, SegmentDescription, SegmentDraft, SegmentWriter
from runstream.snapshots.signing import SigningKey
from runstream.snapshots.texts import event_types, readme
from runstream.subjects import Subjects

AT_ONCE = 4
"""Partitions that are read side by side: each may hold two segments in memory."""
_BATCH = 1000
_LEFT_OUT = (
    "caches",
    "settings, tokens and keys",
    "what is made again from the log: the rows of the database, timers, leases, checkpoints",
)

Send = Callable[[bytes], Awaitable[None]]
"""Takes the next bytes of the snapshot; returns when there is room for more."""
ObjectWriter = Callable[["SnapshotStream", Callable[[str], None]], AsyncIterator[ObjectList]]
"""Writes objects and then the lists of them, which it yields; says the path of each object that it wrote."""
ParkedAt = Callable[[Subjects, tuple[int, ...]], Awaitable[Sequence[ParkedCommit]]]
Remember = Callable[[SnapshotHeader], Awaitable[None]]
"""Notes a snapshot that was sent to its end."""
"""Says which commits of a log are parked as of these positions, the first of each aggregate."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What is there already of an interrupted export."""

    header: SnapshotHeader
    texts: dict[str, str]
    segments: tuple[SegmentDescription, ...]


@dataclass(slots=True)
class Progress:
    """How far an export has come; changed while it goes on."""

    commits: int = 0
    total: int = 0
    """Commits up to the positions; fewer are exported when there is a time limit."""
    objects: int = 0
    bytes: int = 0
    """Of the file."""
    tell: Callable[[Progress], None] = lambda _progress: None
    """Told of it whenever it has changed."""


class SnapshotStream:
    """The tar as it is sent; one file at a time."""

    def __init__(self, send: Send, created: datetime, progress: Progress) -> None:
        self._send, self._created, self._progress = send, created, progress
        self._lock = asyncio.Lock()

    async def file(self, name: str, content: bytes) -> None:
        """Send a whole file."""
        async with self._lock:
            await self._sent(header(name, len(content), self._created))
            await self._sent(content)
            await self._sent(padding(len(content)))

    async def begin(self, name: str, size: int) -> None:
        """Send the header of a file whose content follows in pieces; then `end`. Nothing else may be sent meanwhile."""
        await self._lock.acquire()
        await self._sent(header(name, size, self._created))

    async def piece(self, content: bytes) -> None:
        """Send a piece of the file that was begun."""
        await self._sent(content)

    async def end(self, size: int) -> None:
        """Send what is behind the file that was begun."""
        await self._sent(padding(size))
        self._lock.release()

    async def close(self) -> None:
        """Send the end of the tar."""
        await self._sent(END)

    async def _sent(self, content: bytes) -> None:
        if content:
            await self._send(content)
            self._progress.bytes += len(content)
            self._progress.tell(self._progress)


async def plan(
    log: ReadableLog, now: datetime, until: LogPosition | datetime | None = None, objects: Sequence[ObjectKind] = ()
) -> SnapshotHeader:
    """What will be exported: up to where each partition goes now, or to an earlier position, or to a time (UTC).

    With a time, a partition ends before its first commit that was made later. Raises BadRequestError for a position
    of another epoch, or behind the end.
    """
    asked = until.sequences if isinstance(until, LogPosition) else ()
    known = (*asked, *(0,) * log.partitions)[: log.partitions]
    ends = tuple([await log.end(partition, at_least=known[partition]) for partition in range(log.partitions)])
    if isinstance(until, LogPosition):
        ends = _require_reached(until, LogPosition(log.subjects.epoch, ends))
    return SnapshotHeader(
        format=m.FORMAT,
        runstream=version(),
        created=now,
        namespace=log.subjects.namespace,
        service=log.subjects.service,
        epoch=log.subjects.epoch,
        partitions=log.partitions,
        ends=ends,
        until=until if isinstance(until, datetime) else None,
        objects=tuple(dict.fromkeys(objects)),
    )


def _require_reached(asked: LogPosition, end: LogPosition) -> tuple[int, ...]:
    same = asked.epoch == end.epoch and len(asked.sequences) == len(end.sequences)
    if not same or any(a > b for a, b in zip(asked.sequences, end.sequences, strict=True)):
        raise BadRequestError(
            f"the log has not come to {asked}: it is at {end}",
            code="positionAheadOfLog",
            details={"asked": str(asked), "end": str(end)},
            hint="a position has the log's epoch and one sequence for each partition, none behind its end",
        )
    return asked.sequences


async def export(
    log: ReadableLog,
    send: Send,
    planned: SnapshotHeader,
    *,
    key: SigningKey | None = None,
    objects: ObjectWriter | None = None,
    parked: ParkedAt | None = None,
    remember: Remember | None = None,
    resumed: Resumed | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Send a whole snapshot, or the rest of one that was interrupted. Raises InternalError when the log fails.

    `planned` is what `plan` says, or the header of what was interrupted. What was sent without its last bytes is
    recognised as incomplete by whoever reads it.
    """
    work = _Export(log, planned, send, progress or Progress())
    if resumed is not None:
        work.texts, work.segments = dict(resumed.texts), [*resumed.segments]
    else:
        await work.send_texts()
    await work.send_partitions()
    if objects is not None:
        await work.send_objects(objects)
    if parked is not None:
        work.parked = tuple(await parked(planned.subjects, m.positions_of(tuple(work.segments), planned.partitions)))
    manifest = await work.finish(key)
    if remember is not None:
        await remember(planned)
    return manifest


@dataclass(slots=True)
class _Export:
    log: ReadableLog
    header: SnapshotHeader
    send: Send
    progress: Progress
    stream: SnapshotStream = field(init=False)
    texts: dict[str, str] = field(default_factory=dict)
    segments: list[SegmentDescription] = field(default_factory=list)
    objects: list[ObjectList] = field(default_factory=list)
    parked: tuple[ParkedCommit, ...] = ()
    referenced: Referenced = field(init=False)

    def __post_init__(self) -> None:
        self.referenced = Referenced(self.header.objects)
        self.stream = SnapshotStream(self.send, self.header.created, self.progress)

    async def send_texts(self) -> None:
        contents = (readme(self.header), event_types(), m.written(self.header))
        for name, content in zip(m.TEXTS, contents, strict=True):
            await self.stream.file(name, content)
            self.texts[name] = hashlib.sha256(content).hexdigest()

    async def send_partitions(self) -> None:
        last: dict[int, SegmentDescription] = {segment.partition: segment for segment in self.segments}
        begins = {p: last[p].last if p in last else 0 for p in range(self.header.partitions)}
        self.progress.commits = sum(begins.values())
        self.progress.total = sum(self.header.ends)
        room = asyncio.Semaphore(AT_ONCE)

        async def work(partition: int) -> None:
            async with room:
                previous = last[partition].sha256 if partition in last else ""
                await self._partition(partition, begins[partition], previous)

        async with asyncio.TaskGroup() as group:
            for partition, begin in begins.items():
                # What was exported whole before an interruption refers to objects, too.
                if begin < self.header.ends[partition] or (begin and self.header.objects):
                    group.create_task(work(partition))

    async def _partition(self, partition: int, after: int, previous: str) -> None:
        drafts: asyncio.Queue[SegmentDraft | None] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(partition, after, drafts))
            group.create_task(self._write(drafts, previous))

    async def _read(self, partition: int, after: int, drafts: asyncio.Queue[SegmentDraft | None]) -> None:
        """Gather drafts of segments up to the partition's end."""
        writer = SegmentWriter(self.header.epoch, partition)
        if self.header.objects:
            await self._gather_references(partition, after)
        async with self.log.read(partition, after) as reader:
            while after < self.header.ends[partition]:
                batch = await reader.next_batch(_BATCH)
                wanted = self._wanted(batch)
                self.referenced.take(wanted)
                for message in wanted:
                    writer.add(message)
                    if writer.full:
                        await drafts.put(writer.take())
                self.progress.commits += len(wanted)
                self.progress.tell(self.progress)
                if len(wanted) < len(batch):
                    break
                after = batch[-1].position.sequence
        if not writer.empty:
            await drafts.put(writer.take())
        await drafts.put(None)

    async def _gather_references(self, partition: int, until: int) -> None:
        """Take in what was exported before an interruption refers to."""
        after = 0
        while after < until:
            async with self.log.read(partition, after) as reader:
                batch = await reader.next_batch(_BATCH)
            self.referenced.take(message for message in batch if message.position.sequence <= until)
            after = batch[-1].position.sequence

    def _wanted(self, batch: list[RawMessage]) -> list[RawMessage]:
        """The messages up to where the partition ends; nothing behind one that is not wanted is."""
        over = batch[-1].position.sequence - self.header.ends[batch[-1].position.partition]
        if over > 0:
            batch = batch[:-over]
        until = self.header.until
        if until is not None:
            late = next((index for index, message in enumerate(batch) if _made_after(message, until)), len(batch))
            batch = batch[:late]
        return batch

    async def _write(self, drafts: asyncio.Queue[SegmentDraft | None], previous: str) -> None:
        while (draft := await drafts.get()) is not None:
            segment: Segment = await asyncio.to_thread(draft.compress, previous)
            previous = segment.description.sha256
            await self.stream.file(segment.description.name, segment.data)
            self.segments.append(segment.description)

    async def send_objects(self, objects: ObjectWriter) -> None:
        async for listed in objects(self.stream, self.referenced.found):
            self.objects.append(listed)
            self.progress.objects += listed.objects
        self.referenced.require_all()

    async def finish(self, key: SigningKey | None) -> Manifest:
        manifest = self._manifest(key)
        content = m.written(manifest)
        await self.stream.file(m.MANIFEST, content)
        if key is not None:
            await self.stream.file(m.SIGNATURE, key.sign(content))
        await self.stream.file(m.END, m.end_of(content))
        await self.stream.close()
        return manifest

    def _manifest(self, key: SigningKey | None) -> Manifest:
        segments = tuple(self.segments)
        names = {"logs": "step logs", "archives": "workspace archives"}
        left_out = [name for kind, name in names.items() if kind not in self.header.objects]
        return Manifest(
            format=m.FORMAT,
            texts=self.texts,
            positions=m.positions_of(segments, self.header.partitions),
            commits=sum(segment.commits for segment in segments),
            events=m.events_by_type(segments),
            unreadable=sum(segment.unreadable for segment in segments),
            segments=segments,
            objects=tuple(self.objects),
            left_out=(*left_out, *_LEFT_OUT),
            public_key=key.public_key if key is not None else "",
            parked=self.parked,
        )


def _made_after(message: RawMessage, until: datetime) -> bool:
    """Whether a commit was made later; of what says no time nobody knows, so it is not."""
    made = time_of(message)
    return made is not None and made > until
