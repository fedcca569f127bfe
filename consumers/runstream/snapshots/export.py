"""Exports: the log up to one position of each partition, sent as one stream while the service runs.

An export reads the end of each partition once, at its beginning. It reads partitions side by side and hashes and
compresses in threads. Memory holds a few segments, whatever the size of the log: the export waits for its receiver.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import get_args

from runstream import config_folding
from runstream.commits import LogPosition
from runstream.errors import BadRequestError, ConflictError
from runstream.feed import is_lost, next_up_to, read_skips, read_up_to
from runstream.glance import made_after
from runstream.lifecycle import for_each
from runstream.log.port import RawMessage, ReadableLog
from runstream.objects import ObjectStorage
from runstream.projections.parked import ParkedCommit
from runstream.release import version
from runstream.snapshots import manifest as m
from runstream.snapshots.container import Send, SnapshotStream
from runstream.snapshots.manifest import (
    FirstParked,
    Manifest,
    ObjectKind,
    ObjectList,
    SnapshotHeader,
    event_types,
    readme,
)
from runstream.snapshots.objects import ObjectWriter, ReferencedObjects, object_writer
from runstream.snapshots.segments import Segment, SegmentDescription, SegmentDraft, SegmentWriter
from runstream.snapshots.signing import SigningKey
from runstream.subjects import Subjects

_POSITION = re.compile(r"\d+:\d+(,\d+)*")
KINDS: tuple[ObjectKind, ...] = get_args(ObjectKind)


def parse_until(text: str, *, local: bool) -> LogPosition | datetime | None:
    """Parse a position of the log or a time; None for an empty text. Raises BadRequestError.

    A time without a zone is local time if `local`, else refused.
    """
    if not text:
        return None
    if _POSITION.fullmatch(text):
        return LogPosition.parse(text)
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None or local:
            return at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _invalid(text) from error
    raise _invalid(text)


def _invalid(text: str) -> BadRequestError:
    return BadRequestError(
        f"{text[:80]!r} is neither a position nor a time",
        code="invalidUntil",
        hint="a position is like 1:812,40,0,97, a time like 2026-11-23T02:16:40Z",
    )


def parse_kinds(text: str) -> tuple[ObjectKind, ...]:
    """Parse the kinds of objects to include, separated by commas. Raises BadRequestError."""
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = next((part for part in asked if part not in KINDS), None)
    if unknown is not None:
        raise BadRequestError(
            f"{unknown[:80]!r} cannot be exported with the log",
            code="invalidObjectKind",
            hint=f"choose from {' and '.join(KINDS)}",
        )
    return tuple(kind for kind in KINDS if kind in asked)


PARTITIONS_AT_ONCE = 4
"""Partitions read side by side; each may hold two segments in memory."""
_BATCH = 1000
MAX_PARKED = 100_000
"""Aggregates with parked commits that a manifest may name: about 30 MB."""
_REASON = 1000
_MADE_AGAIN = "what is made again from the log: the rows of the database, timers, leases, checkpoints"
_DATA: dict[ObjectKind, str] = {"logs": "step logs", "archives": "workspace archives"}
_LEFT_OUT = ("caches", "users, projects and secrets", "settings, tokens and keys", _MADE_AGAIN)
_LEFT_OUT_OF_BOTH = ("caches", "settings, and the keys that open its secrets", "repositories", _MADE_AGAIN)
_CONFIG_LEFT_OUT = ("runs", "settings, and the keys that open its secrets", "repositories", _MADE_AGAIN)

ParkedAt = Callable[[Subjects, tuple[int, ...]], Awaitable[Sequence[ParkedCommit]]]
"""Returns the first parked commit of each aggregate as of these positions, one for each partition."""
Remember = Callable[[str, str, datetime], Awaitable[None]]
"""Records a finished export: its service, namespace and time."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The part of an interrupted export that is kept."""

    header: SnapshotHeader
    texts: dict[str, str]
    segments: tuple[SegmentDescription, ...]
    logs: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the manifest of each further service, all of which are kept."""


@dataclass(frozen=True, slots=True)
class FurtherLog:
    """The log of a further service in an export."""

    log: ReadableLog
    planned: SnapshotHeader
    parked: ParkedAt | None = None


@dataclass(slots=True)
class ExportProgress:
    """The progress of an export, updated while it runs."""

    commits: int = 0
    total: int = 0
    """Commits up to the positions; a time limit exports fewer."""
    objects: int = 0
    bytes: int = 0
    """Bytes of the file."""
    tell: Callable[[ExportProgress], None] = lambda _progress: None
    """Called after each change."""

    def sent(self, size: int) -> None:
        """Count bytes of the file."""
        self.bytes += size
        self.tell(self)


async def plan(
    log: ReadableLog, now: datetime, until: LogPosition | datetime | None = None, objects: Sequence[ObjectKind] = ()
) -> SnapshotHeader:
    """Plan an export: up to the current end of each partition, to an earlier position, or to a time (UTC).

    With a time, a partition ends before its first later commit. Raises BadRequestError for a position
    of another epoch, or behind the end.
    """
    if objects and log.subjects.service == config_folding.SERVICE:
        raise BadRequestError(
            "users, projects and secrets have no logs and no archives",
            code="invalidObjectKind",
            hint="leave --with out, or export the service runs",
        )
    asked = until.sequences if isinstance(until, LogPosition) else ()
    known = (*asked, *(0,) * log.partitions)[: log.partitions]
    ends = tuple([await log.end(partition, at_least=known[partition]) for partition in range(log.partitions)])
    if isinstance(until, LogPosition):
        ends = _require_within(until, LogPosition(log.subjects.epoch, ends))
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


def _require_within(asked: LogPosition, end: LogPosition) -> tuple[int, ...]:
    same = asked.epoch == end.epoch and len(asked.sequences) == len(end.sequences)
    if not same or any(a > b for a, b in zip(asked.sequences, end.sequences, strict=True)):
        raise BadRequestError(
            f"the log has not reached {asked}: it is at {end}",
            code="positionAheadOfLog",
            details={"asked": str(asked), "end": str(end)},
            hint="a position has the log's epoch and one sequence for each partition, none behind its end",
        )
    return asked.sequences


async def plan_all(
    logs: Sequence[ReadableLog],
    now: datetime,
    until: LogPosition | datetime | None = None,
    objects: Sequence[ObjectKind] = (),
    parked: ParkedAt | None = None,
) -> tuple[SnapshotHeader, tuple[FurtherLog, ...]]:
    """Plan an export of one log, or of several: that of runs, which has the objects, and then further ones.

    The end of the first log is read first: every run in the file has the project that it was created in. Raises as
    `plan` does, and BadRequestError for a position of several logs.
    """
    first, *others = logs
    if others and isinstance(until, LogPosition):
        raise BadRequestError(
            "a position is one of a single service's log",
            code="invalidUntil",
            hint=f"export only runs up to it (--service {first.subjects.service}), or give a time",
        )
    planned = await plan(first, now, until, objects)
    further = [FurtherLog(log, await plan(log, now, until), parked) for log in others]
    if further:
        planned = replace(planned, format=m.FORMAT_OF_SEVERAL, also=tuple(one.planned.service for one in further))
    return planned, tuple(further)


def file_name(namespace: str, services: Sequence[str], at: datetime) -> str:
    """Return a name for an export's file."""
    named = f"{namespace}-{services[0]}" if len(services) == 1 and services[0] != "runs" else namespace
    return f"{named}-{at:%Y%m%dT%H%M%SZ}.snapshot.tar"


async def export(
    log: ReadableLog,
    send: Send,
    planned: SnapshotHeader,
    *,
    further: Sequence[FurtherLog] = (),
    key: SigningKey | None = None,
    objects: ObjectWriter | None = None,
    parked: ParkedAt | None = None,
    remember: Remember | None = None,
    resumed: Resumed | None = None,
    progress: ExportProgress | None = None,
) -> Manifest:
    """Send a whole snapshot, or the rest of one that was interrupted. Raises InternalError when the log fails.

    `planned` and `further` come from `plan_all`; or `planned` is the header of the interrupted export. A reader
    recognises a file without its last bytes as incomplete.
    """
    progress = progress or ExportProgress()
    progress.total = sum(sum(one.ends) for one in (planned, *(one.planned for one in further)))
    stream = SnapshotStream(send, planned.created, progress.sent)
    work = _Export(log, planned, stream, progress)
    if resumed is not None:
        work.texts, work.segments, work.logs = dict(resumed.texts), [*resumed.segments], dict(resumed.logs)
    else:
        await work.send_texts()
        for one in further:
            work.logs[one.planned.service] = await _further(one, stream, progress)
    await work.send_partitions()
    if objects is not None:
        await work.send_objects(objects)
    if parked is not None:
        found = await parked(planned.subjects, m.positions_of(tuple(work.segments), planned.partitions))
        await work.require_parked(found)
        work.parked = _first_parked(found)
    manifest = await work.finish(key)
    if remember is not None:
        for service in (planned.service, *planned.also):
            await remember(service, planned.namespace, planned.created)
    return manifest


async def _further(one: FurtherLog, stream: SnapshotStream, progress: ExportProgress) -> str:
    """Send the log of a further service; return the hash of its manifest."""
    work = _Export(one.log, one.planned, stream.within(m.folder_of(one.planned.service)), progress)
    await work.send_header()
    await work.send_partitions()
    if one.parked is not None:
        found = await one.parked(one.planned.subjects, m.positions_of(tuple(work.segments), one.planned.partitions))
        await work.require_parked(found)
        work.parked = _first_parked(found)
    return hashlib.sha256(await work.send_manifest(work.manifest(None))).hexdigest()


def _first_parked(commits: Sequence[ParkedCommit]) -> tuple[FirstParked, ...]:
    if len(commits) > MAX_PARKED:
        raise BadRequestError(
            f"more runs and tasks have parked commits than a snapshot can name ({len(commits)}, at most {MAX_PARKED})",
            code="tooManyParked",
            hint="was the log written by a newer Runstream? Export it with that one",
        )
    return tuple(
        FirstParked(
            partition=one.position.partition,
            sequence=one.position.sequence,
            subject=one.subject.split(".", 4)[-1],
            reason=one.reason[:_REASON],
        )
        for one in commits
    )


@dataclass(slots=True)
class _Export:
    log: ReadableLog
    header: SnapshotHeader
    stream: SnapshotStream
    progress: ExportProgress
    texts: dict[str, str] = field(default_factory=dict)
    segments: list[SegmentDescription] = field(default_factory=list)
    objects: list[ObjectList] = field(default_factory=list)
    parked: tuple[FirstParked, ...] = ()
    logs: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the manifest of each further service."""
    referenced: ReferencedObjects = field(init=False)
    reached: dict[int, int] = field(default_factory=dict)
    """The last sequence of each partition that is surely exported."""
    lost: list[RawMessage] = field(default_factory=list)
    """What stands for messages that NATS has lost."""

    def __post_init__(self) -> None:
        self.referenced = ReferencedObjects(self.header.objects)

    async def send_texts(self) -> None:
        for name, content in ((m.README, readme(self.header)), (m.EVENT_TYPES, event_types())):
            await self._send_text(name, content)
        await self.send_header()

    async def send_header(self) -> None:
        await self._send_text(m.SNAPSHOT, m.to_json(self.header))

    async def _send_text(self, name: str, content: bytes) -> None:
        await self.stream.file(name, content)
        self.texts[name] = hashlib.sha256(content).hexdigest()

    async def send_partitions(self) -> None:
        last: dict[int, SegmentDescription] = {segment.partition: segment for segment in self.segments}
        begins = {p: last[p].last if p in last else 0 for p in range(self.header.partitions)}
        self.progress.commits += sum(begins.values())

        async def work(partition: int) -> None:
            drafts: asyncio.Queue[SegmentDraft | None] = asyncio.Queue(1)
            previous = last[partition].sha256 if partition in last else ""
            parts = (partial(self._read, partition, begins[partition], drafts), partial(self._write, drafts, previous))
            await for_each(parts, lambda part: part(), at_once=len(parts))

        # A partition that was exported whole before an interruption refers to objects, too.
        wanted = [p for p, begin in begins.items() if begin < self.header.ends[p] or (begin and self.header.objects)]
        await for_each(wanted, work, at_once=PARTITIONS_AT_ONCE)

    async def _read(self, partition: int, after: int, drafts: asyncio.Queue[SegmentDraft | None]) -> None:
        """Collect drafts of segments up to the partition's end."""
        writer = SegmentWriter(self.header.epoch, partition)
        if self.header.objects:  # also those of commits that were exported before an interruption
            async for earlier in read_up_to(self.log, partition, after, limit=_BATCH):
                self.referenced.take(earlier)
        async with self.log.read(partition, after) as reader:
            while after < self.header.ends[partition]:
                batch = await next_up_to(self.log, partition, reader, after, self.header.ends[partition], _BATCH)
                wanted = self._up_to_end(batch)
                self.referenced.take(wanted)
                for message in wanted:
                    if is_lost(message, self.log.subjects):
                        self.lost.append(message)
                    writer.add(message)
                    if writer.full:
                        await drafts.put(writer.take())
                self.progress.commits += len(wanted)
                self.progress.tell(self.progress)
                if len(wanted) < len(batch):
                    break
                after = batch[-1].position.sequence
        self.reached[partition] = after
        if not writer.empty:
            await drafts.put(writer.take())
        await drafts.put(None)

    def _up_to_end(self, batch: list[RawMessage]) -> list[RawMessage]:
        """Return the messages of a batch up to the partition's end."""
        over = batch[-1].position.sequence - self.header.ends[batch[-1].position.partition]
        if over > 0:
            batch = batch[:-over]
        until = self.header.until
        if until is not None:
            late = next((index for index, message in enumerate(batch) if made_after(message, until)), len(batch))
            batch = batch[:late]
        return batch

    async def require_parked(self, parked: Sequence[ParkedCommit]) -> None:
        """Refuse lost commits that are neither parked nor skipped: their rows are older, and no import could park them.

        Raises ConflictError.
        """
        known = {one.position for one in parked}
        for message in self.lost:
            at = message.position
            if at in known:
                continue
            skips = await read_skips(self.log, at.partition, self.header.ends[at.partition])
            if skips.find(message) is None:
                raise ConflictError(
                    f"position {at} is no longer in the log, but the projection was made before that: the snapshot "
                    "could not be imported",
                    code="lostNotParked",
                    details={"position": str(at)},
                    hint="`runstream rebuild` parks what cannot be applied without it; then export again",
                )

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
        for partition, after in self.reached.items():
            end = await self.log.end(partition)
            runs = [f"{self.log.subjects.prefix(partition)}.run.>"]
            async for batch in read_up_to(self.log, partition, end, after=after, filters=runs, limit=_BATCH):
                self.referenced.take_removals(batch)
        self.referenced.require_all()

    async def finish(self, key: SigningKey | None) -> Manifest:
        manifest = self.manifest(key)
        content = await self.send_manifest(manifest)
        if key is not None:
            await self.stream.file(m.SIGNATURE, key.sign(content))
        await self.stream.file(m.END, m.end_of(content))
        await self.stream.close()
        return manifest

    async def send_manifest(self, manifest: Manifest) -> bytes:
        content = m.to_json(manifest)
        await self.stream.file(m.MANIFEST, content)
        return content

    def manifest(self, key: SigningKey | None) -> Manifest:
        segments = tuple(self.segments)
        return Manifest(
            format=self.header.format,
            texts=self.texts,
            positions=m.positions_of(segments, self.header.partitions),
            commits=sum(segment.commits for segment in segments),
            events=m.events_by_type(segments),
            unreadable=sum(segment.unreadable for segment in segments),
            segments=segments,
            objects=tuple(self.objects),
            left_out=self._left_out(),
            public_key=key.public_key if key is not None else "",
            parked=self.parked,
            logs=self.logs,
        )

    def _left_out(self) -> tuple[str, ...]:
        if self.header.service == config_folding.SERVICE:
            return _CONFIG_LEFT_OUT
        data = tuple(name for kind, name in _DATA.items() if kind not in self.header.objects)
        return (*data, *(_LEFT_OUT_OF_BOTH if config_folding.SERVICE in self.header.also else _LEFT_OUT))


AT_ONCE = 2


class _Slot:
    """A slot for one export, taken by the request: a third export is refused before its answer begins.

    An export that is never written, because its client left, frees its slot when it is garbage-collected.
    """

    def __init__(self, exports: LogExports) -> None:
        self._exports: LogExports | None = exports
        exports.running += 1

    def free(self) -> None:
        """Free the slot, once."""
        if self._exports is not None:
            self._exports.running -= 1
            self._exports = None

    def __del__(self) -> None:
        self.free()


@dataclass(frozen=True, slots=True)
class ServedExport:
    """An export that is ready to be sent."""

    name: str
    """Suggested file name."""
    write: Callable[[Send], Awaitable[None]]
    """Sends the whole file. Raises InternalError when the log fails."""


@dataclass(slots=True)
class LogExports:
    """Exports of one log or several, unsigned (the gateway's `Exports`)."""

    served: Callable[[], Awaitable[Sequence[ReadableLog]]]
    """Opens the logs in their current epochs, that of runs first."""
    objects: ObjectStorage
    now: Callable[[], datetime]
    """The time in UTC."""
    parked: ParkedAt | None = None
    remember: Remember | None = None
    running: int = field(default=0, init=False)

    async def open(self, until: str, include: str) -> ServedExport:
        """Open an export. Raises BadRequestError, and ConflictError while two are running."""
        asked = parse_until(until, local=False), parse_kinds(include)
        if self.running >= AT_ONCE:
            raise ConflictError(
                f"{AT_ONCE} exports are running already",
                code="exportsBusy",
                hint="try again when one of them has ended, or run `runstream export` beside the service",
            )
        slot = _Slot(self)
        try:
            logs = await self.served()
            planned, further = await plan_all(logs, self.now(), *asked, parked=self.parked)
        except BaseException:
            slot.free()
            raise

        async def write(send: Send) -> None:
            objects = object_writer(self.objects, planned.objects) if planned.objects else None
            try:
                await export(
                    logs[0],
                    send,
                    planned,
                    further=further,
                    objects=objects,
                    parked=self.parked,
                    remember=self.remember,
                )
            finally:
                slot.free()

        services = (planned.service, *planned.also)
        return ServedExport(file_name(planned.namespace, services, planned.created), write)
