"""Opening a snapshot: its structure is sound, and every file in it has the size that the manifest says.

Opening checks the tar, the hash of the manifest, its signature, the chain of segments, counts and positions. Reading
(`messages`, `objects`) checks hashes on the way. Whether the commits are consistent is for
`runstream.snapshots.verify`.

    with open_snapshot(path) as snapshot:
        for partition in range(snapshot.header.partitions):
            for message in snapshot.messages(partition): ...
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from runstream.codec import decode
from runstream.commits import StoredCommit
from runstream.counting import counted
from runstream.errors import BadRequestError, NotExistError
from runstream.events.skip import CommitSkipped
from runstream.log.port import RawMessage
from runstream.objects.paths import ARCHIVES, LOGS
from runstream.skips import Skips
from runstream.snapshots import manifest as m
from runstream.snapshots.container import CUT, TarEntry, content, entries
from runstream.snapshots.errors import WHOLE, SnapshotError, in_folder
from runstream.snapshots.manifest import Manifest, SnapshotHeader, parked_from, read_header, read_manifest
from runstream.snapshots.segments import MAX_SEGMENT_FILE_BYTES, SegmentDescription, check_chain, read_segment
from runstream.snapshots.signing import SIGNATURE_BYTES, check_signature, fingerprint
from runstream.subjects import Subjects, aggregate_of

MAX_LISTED = 200_000
"""Limit of segments and object lists in a snapshot; a manifest cannot hold more."""
OBJECTS = (f"{LOGS}/", f"{ARCHIVES}/")
"""Prefixes of the files of objects; each file has the object's own path."""
OBJECT_LISTS = "object-lists/"
SEGMENTS = "segments/"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An open snapshot, from `open_snapshot`."""

    path: Path
    header: SnapshotHeader
    manifest: Manifest
    signer: str
    """Fingerprint of the signing key; empty when the snapshot is not signed."""
    size: int
    """Size of the file in bytes."""
    file: BinaryIO
    places: dict[str, TarEntry]
    """The tar entries of segments and object lists, by name."""
    folder: str = ""
    """Prefix of the names of its files; empty unless it is one of a further service."""
    also: tuple[Snapshot, ...] = ()
    """The snapshots of further services in the same file."""

    @property
    def all(self) -> tuple[Snapshot, ...]:
        """This snapshot and those of further services."""
        return (self, *self.also)

    def entries(self) -> Iterator[TarEntry]:
        """Yield its tar entries, by their names in its folder. Raises SnapshotError."""
        for entry in entries(self.file, self.size):
            if entry.name.startswith(self.folder):
                yield replace(entry, name=entry.name.removeprefix(self.folder))

    def segments(self, partition: int) -> tuple[SegmentDescription, ...]:
        """Return the segments of a partition in order."""
        return tuple(segment for segment in self.manifest.segments if segment.partition == partition)

    def segment_data(self, description: SegmentDescription) -> bytes:
        """Return the bytes of a segment's file. Raises SnapshotError when it is too large."""
        return content(self.file, self.places[description.name], MAX_SEGMENT_FILE_BYTES)

    def messages(self, partition: int, subjects: Subjects | None = None) -> Iterator[RawMessage]:
        """Yield the messages of a partition in order, with the exported subjects or with the given ones.

        Memory holds one segment. Raises SnapshotError when something was changed; every message yielded before has
        the right hash.
        """
        for description in self.segments(partition):
            yield from read_segment(description, self.segment_data(description), subjects or self.header.subjects)

    def message(self, partition: int, sequence: int) -> RawMessage | None:
        """Return one message; None when the snapshot does not include it. Raises SnapshotError."""
        for description in self.segments(partition):
            if description.first <= sequence <= description.last:
                messages = read_segment(description, self.segment_data(description), self.header.subjects)
                return next(islice(messages, sequence - description.first, None))
        return None

    def skips(self) -> Skips:
        """Return the skip decisions, reading only the segments that have some. Raises SnapshotError."""
        skips = Skips()
        for description in self.manifest.segments:
            if CommitSkipped.__name__ in description.events:
                for message in read_segment(description, self.segment_data(description), self.header.subjects):
                    if message.subject.split(".")[4] == "skip":
                        with contextlib.suppress(BadRequestError):  # an unreadable commit decides nothing
                            skips.take(decode(message))
        return skips

    def commits(self, partition: int) -> Iterator[StoredCommit]:
        """Yield decoded and upcast commits, without those parked in the source; skipped ones have no events.

        Raises SnapshotError for a commit that does not decode.
        """
        skips, parked = self.skips(), parked_from(self.manifest, self.header.subjects, partition)
        for message in self.messages(partition):
            if parked and message.position.sequence >= parked.get(aggregate_of(message.subject), 1 << 62):
                continue
            try:
                yield skips.find(message) or decode(message)
            except BadRequestError as error:
                raise SnapshotError(f"partition {partition}", error.message, code="unreadableCommit") from error


@contextlib.contextmanager
def open_snapshot(path: Path, *, public_key: str = "") -> Iterator[Snapshot]:
    """Open a snapshot and check its structure. With a public key (PEM), it must be signed with that key.

    Raises SnapshotError with the damaged part, NotExistError when the file does not exist.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise NotExistError(f"there is no file {path}", code="noSnapshot") from error
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {error.strerror}", code="noSnapshot") from error
    with file:
        yield _opened(path, file, public_key)


def _opened(path: Path, file: BinaryIO, public_key: str) -> Snapshot:
    size = os.fstat(file.fileno()).st_size
    found = _Walk(file).through(size)
    if found.texts[m.END] != m.end_of(found.texts[m.MANIFEST]):
        raise SnapshotError(m.MANIFEST, f"it was changed: its SHA-256 is not the one in {m.END}")
    header, manifest = _checked(found)
    if manifest.logs.keys() != {*header.also}:
        raise SnapshotError(m.MANIFEST, f"its services differ from those in {m.SNAPSHOT}")
    signer = _signer(manifest, found.texts, public_key)
    further = []
    for service in header.also:
        folder, within = m.folder_of(service), found.further[service]
        if manifest.logs[service] != hashlib.sha256(within.texts[m.MANIFEST]).hexdigest():
            raise SnapshotError(folder + m.MANIFEST, "it was changed: its SHA-256 differs from the manifest")
        with in_folder(folder):
            its_header, its_manifest = _checked(within)
            if (its_header.namespace, its_header.service, its_header.also) != (header.namespace, service, ()):
                raise SnapshotError(m.SNAPSHOT, f"it is not of the service {service} of {header.namespace}")
        further.append(Snapshot(path, its_header, its_manifest, signer, size, file, within.places, folder))
    return Snapshot(path, header, manifest, signer, size, file, found.places, also=tuple(further))


def _checked(found: _Walk) -> tuple[SnapshotHeader, Manifest]:
    """Return header and manifest of a log, if they fit each other and its files."""
    header, manifest = read_header(found.texts[m.SNAPSHOT]), read_manifest(found.texts[m.MANIFEST])
    for name in found.first:
        if manifest.texts.get(name) != hashlib.sha256(found.texts[name]).hexdigest():
            raise SnapshotError(name, "it was changed: its SHA-256 differs from the manifest")
    if manifest.texts.keys() != set(found.first):
        raise SnapshotError(m.MANIFEST, "it names texts that a snapshot does not have")
    _check_segments(header, manifest)
    _check_parked(header, manifest)
    _check_places(manifest, found.places)
    return header, manifest


class _Walk:
    """One pass over the files of a log in the tar, which must come in a fixed order."""

    def __init__(self, file: BinaryIO, first: tuple[str, ...] = m.TEXTS) -> None:
        self._file = file
        self.first = first
        self.texts: dict[str, bytes] = {}
        self.places: dict[str, TarEntry] = {}
        self.further: dict[str, _Walk] = {}
        """The files of further services, by service."""

    def through(self, size: int) -> _Walk:
        """Read all files. Raises SnapshotError."""
        for entry in entries(self._file, size):
            self._take(entry)
        if m.END not in self.texts:
            problem = f"it has no {m.END}: it was cut off"
            raise SnapshotError(WHOLE, problem, code="truncatedSnapshot", hint=CUT)
        return self

    def _take(self, entry: TarEntry) -> None:
        begun = len(self.texts)
        if begun < len(self.first):
            self._text(entry, self.first[begun], m.MAX_TEXT_BYTES)
            if begun == len(self.first) - 1:  # report a newer format before anything that is unknown here
                header = read_header(self.texts[m.SNAPSHOT])
                self.further = {service: _Walk(self._file, m.FOLDER_TEXTS) for service in header.also}
        elif (service := self._unread()) is not None:
            folder = m.folder_of(service)
            if not entry.name.startswith(folder):
                raise SnapshotError(entry.name, f"it is in the place of a file in {folder}")
            with in_folder(folder):
                self.further[service]._take(replace(entry, name=entry.name.removeprefix(folder)))  # noqa: SLF001
        elif begun == len(self.first) and entry.name != m.MANIFEST:
            self._place(entry)
        elif begun == len(self.first):
            self._text(entry, m.MANIFEST, m.MAX_MANIFEST_BYTES)
        elif entry.name == m.SIGNATURE and m.SIGNATURE not in self.texts and m.END not in self.texts:
            self._text(entry, m.SIGNATURE, SIGNATURE_BYTES)
        elif m.END not in self.texts:
            self._text(entry, m.END, m.MAX_TEXT_BYTES)
        else:
            raise SnapshotError(entry.name, f"it comes behind {m.END}")

    def _unread(self) -> str | None:
        """Return the first further service whose files were not all read."""
        return next((service for service, walk in self.further.items() if m.MANIFEST not in walk.texts), None)

    def _text(self, entry: TarEntry, name: str, limit: int) -> None:
        if entry.name != name:
            if name == m.README:
                raise SnapshotError(WHOLE, f"it is not a snapshot: it begins with {entry.name}", code="notASnapshot")
            raise SnapshotError(entry.name, f"it is in the place of {name}")
        self.texts[name] = content(self._file, entry, limit)

    def _place(self, entry: TarEntry) -> None:
        if entry.name.startswith(OBJECTS):
            return
        if not entry.name.startswith((SEGMENTS, OBJECT_LISTS)):
            raise SnapshotError(entry.name, "a snapshot has no such file")
        if entry.name in self.places:
            raise SnapshotError(entry.name, "it is there twice")
        if len(self.places) >= MAX_LISTED:
            raise SnapshotError(entry.name, f"a snapshot has at most {MAX_LISTED} segments")
        self.places[entry.name] = entry


def _signer(manifest: Manifest, texts: dict[str, bytes], public_key: str) -> str:
    signature = texts.get(m.SIGNATURE)
    if not manifest.public_key:
        if signature is not None:
            raise SnapshotError(m.SIGNATURE, "the manifest names no key for it", code="wrongSignature")
        if public_key:
            raise SnapshotError(m.MANIFEST, "the snapshot is not signed", code="wrongSignature")
        return ""
    if signature is None:
        raise SnapshotError(m.SIGNATURE, "it is missing", code="wrongSignature")
    check_signature(m.SIGNATURE, manifest.public_key, texts[m.MANIFEST], signature)
    if public_key and public_key != manifest.public_key:
        raise SnapshotError(
            m.SIGNATURE,
            f"it was signed with the key {fingerprint(manifest.public_key)}, not with {fingerprint(public_key)}",
            code="wrongSignature",
            hint="if you trust that key, name it with --key",
        )
    return fingerprint(manifest.public_key)


def _check_segments(header: SnapshotHeader, manifest: Manifest) -> None:
    """Check the chain, and that positions and counts match the segments."""
    segments = manifest.segments
    ends = check_chain(segments, header.epoch, header.partitions)
    begun: set[int] = set()
    for segment in segments:
        if segment.partition not in begun and segment.first != 1:
            raise SnapshotError(segment.name, f"partition {segment.partition} begins here; what is before is missing")
        begun.add(segment.partition)
    counts = (sum(s.commits for s in segments), sum(s.unreadable for s in segments), m.events_by_type(segments))
    if ends != manifest.positions or counts != (manifest.commits, manifest.unreadable, manifest.events):
        raise SnapshotError(m.MANIFEST, "its positions or counts differ from its segments")
    for partition, (end, limit) in enumerate(zip(ends, header.ends, strict=True)):
        if end > limit or (end < limit and header.until is None):
            problem = f"partition {partition} goes up to {end}, and should go up to {limit}"
            raise SnapshotError(m.MANIFEST, problem)


def _check_parked(header: SnapshotHeader, manifest: Manifest) -> None:
    for one in manifest.parked:
        if one.partition >= header.partitions or one.sequence > manifest.positions[one.partition]:
            place = f"{one.partition}/{one.sequence}"
            raise SnapshotError(m.MANIFEST, f"it names {place} as parked, which is not in it")


def _check_places(manifest: Manifest, places: dict[str, TarEntry]) -> None:
    """Check that exactly the listed files are present, in order and with their sizes."""
    listed = {segment.name: segment.file_bytes for segment in manifest.segments}
    listed |= {found.name: found.file_bytes for found in manifest.objects}
    for name, size in listed.items():
        if name not in places:
            raise SnapshotError(name, "it is missing")
        if places[name].size != size:
            raise SnapshotError(name, f"it has {counted(places[name].size, 'byte')}, and should have {size}")
    for name, expected in zip(places, listed, strict=False):
        if name not in listed:
            raise SnapshotError(name, "the manifest does not name it")
        if name != expected:
            raise SnapshotError(name, f"it is in the place of {expected}")
    if len(places) > len(listed):
        raise SnapshotError([*places][len(listed)], "the manifest does not name it")
