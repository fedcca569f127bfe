"""Step logs and workspace archives in a snapshot: one file each, and a list with the hashes of every few thousand.

A list is one zstd frame of JSON lines {"bytes", "name", "sha256"}, in the order of the files before it. An export also
compares the objects that it wrote with those that runs refer to, and fails when one is missing. What retention has
removed, also during the export, is not missed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import structlog

from runstream.codec import decode, zstd
from runstream.counting import counted
from runstream.domain.holders import Holders
from runstream.errors import BadRequestError, InternalError, NotExistError
from runstream.events.executor_task import ExecutorTaskArchiveStored, ExecutorTaskAssigned, ExecutorTaskLogStored
from runstream.events.run import DataKind
from runstream.ids import attempt_id
from runstream.log.port import RawMessage
from runstream.objects import ObjectStorage, paths
from runstream.objects.paths import ARCHIVES, LOGS
from runstream.objects.port import chunks as stored_chunks
from runstream.retention.removal import release_of
from runstream.snapshots.container import MAX_NAME, SnapshotStream, TarEntry, chunks, content, is_name
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.manifest import MANIFEST, ObjectKind, ObjectList
from runstream.snapshots.reading import OBJECT_LISTS, OBJECTS, Snapshot
from runstream.snapshots.segments import Count, Hash, unpacked

_NAMED = 5


class ReferencedObjects:
    """The objects that commits refer to, less those that the export wrote."""

    def __init__(self, kinds: Collection[ObjectKind]) -> None:
        self._kinds = kinds
        self._run_tasks: dict[str, tuple[str, int]] = {}
        """Run task and attempt of each executor task."""
        self._expected: dict[bytes, tuple[DataKind, str, int, int | None]] = {}
        self._holders = Holders()

    def take(self, messages: Iterable[RawMessage]) -> None:
        """Add the references of a partition's commits; they must come in order."""
        if not self._kinds:
            return
        for message in messages:
            if ".task." in message.subject or ".run." in message.subject:
                self._take(message)

    def _take(self, message: RawMessage) -> None:
        try:
            commit = decode(message).commit
        except BadRequestError:
            return  # an unreadable commit refers to nothing
        task = commit.address.id
        for event in commit.events:
            self._holders.take(task, event)
            match event:
                case ExecutorTaskAssigned(run_task_id=run_task, attempt=attempt):
                    self._run_tasks[task] = (run_task, attempt)
                case ExecutorTaskLogStored(step=step) if "logs" in self._kinds:
                    self._expect("logs", task, step)
                case ExecutorTaskArchiveStored(step=step) if "archives" in self._kinds:
                    self._expect("archives", task, step)

    def take_removals(self, messages: Iterable[RawMessage]) -> None:
        """Note what was removed after the exported commits, while the objects were written."""
        for message in messages:
            if release_of(message) is not None:
                for event in decode(message).commit.events:
                    self._holders.take(message.subject.rpartition(".")[2], event)

    def _expect(self, kind: DataKind, task: str, step: int | None) -> None:
        if (known := self._run_tasks.get(task)) is not None:
            run_task, attempt = known
            self._expected[_hash(_path(kind, run_task, attempt, step))] = (kind, run_task, attempt, step)

    def found(self, path: str) -> None:
        """Note that the export wrote an object."""
        self._expected.pop(_hash(path), None)

    def require_all(self) -> None:
        """Raise InternalError with the missing objects to which a run refers, if there are any."""
        missing = sorted(_path(*each) for each in self._expected.values() if self._holders.held(each[1], each[0]))
        if not missing:
            return
        more = f", and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise InternalError(
            f"the object storage lacks {counted(len(missing), 'object')} that the log refers to: "
            f"{', '.join(missing[:_NAMED])}{more}",
            code="objectsMissing",
            details={"missing": missing[:1000]},
            hint="check that it is the right object storage; export without --with, or restore them from a backup",
        )


def _path(kind: DataKind, run_task: str, attempt: int, step: int | None) -> str:
    stored = attempt_id(run_task, attempt)
    return paths.archive(stored, step) if kind == "archives" and step is not None else paths.step_log(stored, step)


def _hash(path: str) -> bytes:
    return hashlib.blake2b(path.encode(), digest_size=16).digest()


LIST_OBJECTS = 5000
_LIST_BYTES = LIST_OBJECTS * 400
_PREFIXES: dict[ObjectKind, str] = {"logs": LOGS, "archives": ARCHIVES}
_PATH = re.compile(rf"({LOGS}|{ARCHIVES})/[0-9a-f-]{{36}}(-[0-9]{{1,9}})?/(data|runs)/.+")
log = structlog.get_logger()


class _Listed(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    bytes: Count
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
    sha256: Hash


_read_listed = msgspec.json.Decoder(_Listed).decode


@dataclass(frozen=True, slots=True)
class SnapshotObject:
    """An object of a snapshot."""

    path: str
    """Its path in the object storage."""
    entry: TarEntry
    sha256: str


ObjectWriter = Callable[[SnapshotStream, Callable[[str], None]], AsyncIterator[ObjectList]]
"""Writes objects and their lists, and yields the lists; calls back with the path of each object written."""


def object_writer(storage: ObjectStorage, kinds: Sequence[ObjectKind]) -> ObjectWriter:
    """Return a writer of all objects of these kinds."""

    async def write(stream: SnapshotStream, written_path: Callable[[str], None]) -> AsyncIterator[ObjectList]:
        lists = 0
        listed: list[_Listed] = []
        for kind in kinds:
            async for found in storage.list(f"{_PREFIXES[kind]}/"):
                written = await _write(storage, found.path, stream)
                if written is not None:
                    listed.append(written)
                    written_path(found.path)
                if len(listed) == LIST_OBJECTS:
                    lists += 1
                    yield await _write_list(lists, listed, stream)
                    listed = []
        if listed:
            yield await _write_list(lists + 1, listed, stream)

    return write


async def _write(storage: ObjectStorage, path: str, stream: SnapshotStream) -> _Listed | None:
    """Write one object; None for one that is deleted in the meantime or not Runstream's."""
    if not is_object_path(path):
        log.warning("an object is left out: its path is not one of Runstream's", action="object_left_out", path=path)
        return None
    try:
        stored = await storage.read(path)
    except NotExistError:
        return None
    hashed, size = hashlib.sha256(), 0
    async with stored, stream.open(path, stored.size) as send:
        async for chunk in stored_chunks(stored):
            hashed.update(chunk)
            size += len(chunk)
            await send(chunk)
        if size != stored.size:
            problem = f"{path} has {counted(size, 'byte')}, and should have {stored.size}"
            raise InternalError(problem, code="objectChanged")
    return _Listed(size, path, hashed.hexdigest())


async def _write_list(number: int, listed: list[_Listed], stream: SnapshotStream) -> ObjectList:
    data = zstd.compress(b"".join(msgspec.json.encode(found) + b"\n" for found in listed))
    name = f"{OBJECT_LISTS}{number:08}.jsonl.zst"
    await stream.file(name, data)
    return ObjectList(
        name=name,
        objects=len(listed),
        bytes=sum(found.bytes for found in listed),
        file_bytes=len(data),
        file_sha256=hashlib.sha256(data).hexdigest(),
    )


def is_object_path(path: str) -> bool:
    """Return whether a snapshot may hold, and an import may store, an object with this path."""
    return _PATH.fullmatch(path) is not None and is_name(path)


def objects(snapshot: Snapshot) -> Iterator[SnapshotObject]:
    """Yield the objects of a snapshot with their listed hashes; `object_chunks` reads them.

    Raises SnapshotError when lists and files disagree.
    """
    lists = iter(snapshot.manifest.objects)
    waiting: list[TarEntry] = []
    for entry in snapshot.entries():
        if entry.name.startswith(OBJECTS):
            waiting.append(entry)
            if len(waiting) > LIST_OBJECTS:
                raise SnapshotError(entry.name, f"more than {LIST_OBJECTS} objects have no list")
        elif entry.name.startswith(OBJECT_LISTS):
            yield from _matched(waiting, _read_list(snapshot, next(lists)))
            waiting = []
        elif entry.name == MANIFEST and waiting:
            raise SnapshotError(waiting[0].name, "no list names it")


def _matched(found: list[TarEntry], listed: list[_Listed]) -> Iterator[SnapshotObject]:
    for entry, expected in zip(found, listed, strict=False):
        if entry.name != expected.name or entry.size != expected.bytes or not is_object_path(expected.name):
            raise SnapshotError(entry.name, f"it is in the place of {expected.name}, {expected.bytes} bytes")
        yield SnapshotObject(expected.name, entry, expected.sha256)
    if len(found) != len(listed):
        name = found[len(listed)].name if len(found) > len(listed) else listed[len(found)].name
        raise SnapshotError(name, "it is missing" if len(found) < len(listed) else "no list names it")


def _read_list(snapshot: Snapshot, described: ObjectList) -> list[_Listed]:
    name = described.name
    data = content(snapshot.file, snapshot.places[name], _LIST_BYTES)
    if hashlib.sha256(data).hexdigest() != described.file_sha256:
        raise SnapshotError(name, "it was changed: its SHA-256 differs from the manifest")
    lines = b"".join(unpacked(name, data, _LIST_BYTES)).splitlines()
    try:
        listed = [_read_listed(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise SnapshotError(name, f"it cannot be read: {error}") from error
    if (len(listed), sum(found.bytes for found in listed)) != (described.objects, described.bytes):
        raise SnapshotError(name, "its counts differ from the manifest")
    return listed


def object_chunks(snapshot: Snapshot, found: SnapshotObject) -> Iterator[bytes]:
    """Yield the content of an object, one MiB at a time. Raises SnapshotError at its end if it was changed."""
    hashed = hashlib.sha256()
    for chunk in chunks(snapshot.file, found.entry):
        hashed.update(chunk)
        yield chunk
    if hashed.hexdigest() != found.sha256:
        raise SnapshotError(found.entry.name, "it was changed: its SHA-256 differs from its list")
