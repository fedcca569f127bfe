"""The file of an export on the local disk: `<file>.part` until it is complete and durable, then `<file>`.

The process that writes a part holds a lock on it. The part of a process that has ended is resumed or replaced.

An interrupted export resumes behind the last whole segment of the part. Its last bytes may be anything, so resuming
reads each segment again: it checks the frame's checksum and the sequence of commits, and recomputes the description.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from runstream.atomic_files import sync_file, sync_folder
from runstream.errors import BadRequestError, ConflictError, InternalError, NotExistError
from runstream.snapshots import manifest as m
from runstream.snapshots.container import TarEntry, content, entries
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.export import Resumed
from runstream.snapshots.manifest import SnapshotHeader, read_header, read_manifest
from runstream.snapshots.reading import SEGMENTS
from runstream.snapshots.segments import MAX_SEGMENT_FILE_BYTES, SegmentDescription, describe_segment


def resume(file: BinaryIO) -> Resumed | None:
    """Truncate the file behind what can be kept, seek to its end and return that part; None when there is none.

    The file is open for reading and writing. Raises SnapshotError when it is not an interrupted export,
    BadRequestError when it is complete.
    """
    size = os.fstat(file.fileno()).st_size
    found = _KeptPart()
    whole = True
    try:
        for entry in entries(file, size):
            if entry.name == m.END:
                raise BadRequestError(
                    "the export is complete: there is nothing to resume",
                    code="snapshotComplete",
                    hint="`runstream snapshot verify` checks it; export to another file",
                )
            whole = whole and found.take(file, entry)
    except SnapshotError as error:
        if error.code == "newerSnapshot" or (size and error.code == "notASnapshot"):
            raise
    file.seek(found.end)
    file.truncate()
    return found.resumed()


class _KeptPart:
    """The part of an interrupted export that is whole, from its beginning."""

    def __init__(self, first: tuple[str, ...] = m.TEXTS) -> None:
        self.end = 0
        self._contents: dict[str, bytes] = {}
        self._header: SnapshotHeader | None = None
        self._segments: list[SegmentDescription] = []
        self._last: dict[int, SegmentDescription] = {}
        self._first = first
        self._further: dict[str, _KeptPart] = {}
        """What is kept of further services, by service."""
        self.manifest: bytes | None = None
        """The manifest of a further service, when all of it is kept."""

    def take(self, file: BinaryIO, entry: TarEntry) -> bool:
        """Keep the next file; False when it is damaged, or when the export writes it again."""
        if self._header is None:
            name = self._first[len(self._contents)]
            if entry.name != name:
                raise SnapshotError(entry.name, f"it is in the place of {name}", code="notASnapshot")
            self._contents[name] = content(file, entry, m.MAX_TEXT_BYTES)
            if name != m.SNAPSHOT:
                return True
            self._header = read_header(self._contents[name])
            self._further = {service: _KeptPart(m.FOLDER_TEXTS) for service in self._header.also}
            if self._further:
                return True  # without all of the further services, the export begins again
        elif (service := self._missing()) is not None:
            if not self._take_further(file, entry, service):
                return False
            if self._missing() is not None:
                return True
        elif not entry.name.startswith(SEGMENTS) or not self._segment(file, entry, self._header):
            return False
        self.end = entry.end
        return True

    def _segment(self, file: BinaryIO, entry: TarEntry, header: SnapshotHeader) -> bool:
        try:
            segment = describe_segment(entry.name, content(file, entry, MAX_SEGMENT_FILE_BYTES), header.subjects)
        except SnapshotError:
            return False  # it was being written when the export ended: export it again
        before = self._last.get(segment.partition)
        follows = segment.first == (before.last + 1 if before is not None else 1)
        if not follows or segment.partition >= header.partitions or segment.last > header.ends[segment.partition]:
            return False
        kept = replace(segment, previous=before.sha256 if before is not None else "")
        self._segments.append(kept)
        self._last[kept.partition] = kept
        return True

    def _missing(self) -> str | None:
        """Return the first further service of which not all is kept."""
        return next((service for service, kept in self._further.items() if kept.manifest is None), None)

    def _take_further(self, file: BinaryIO, entry: TarEntry, service: str) -> bool:
        """Take the next file of a further service; False when it is damaged or belongs to another one."""
        folder, kept = m.folder_of(service), self._further[service]
        if not entry.name.startswith(folder):
            return False
        within = replace(entry, name=entry.name.removeprefix(folder))
        if within.name != m.MANIFEST:
            return kept.take(file, within)
        written = content(file, within, m.MAX_MANIFEST_BYTES)
        try:
            manifest = read_manifest(written)
        except SnapshotError:
            return False
        if (manifest.segments, manifest.texts) != (tuple(kept._segments), kept._hashes()):  # noqa: SLF001
            return False
        kept.manifest = written
        return True

    def _hashes(self) -> dict[str, str]:
        return {name: hashlib.sha256(text).hexdigest() for name, text in self._contents.items()}

    def resumed(self) -> Resumed | None:
        """Return what is kept; None without a whole header, or without all of the further services."""
        if self._header is None or self._missing() is not None:
            return None
        logs = {name: hashlib.sha256(kept.manifest or b"").hexdigest() for name, kept in self._further.items()}
        return Resumed(self._header, self._hashes(), tuple(self._segments), logs)


class SnapshotFile:
    """The file of an export. A context manager: without `finish`, the part stays and can be resumed."""

    def __init__(self, path: Path, *, resuming: bool) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self._resuming = resuming
        self.resumed: Resumed | None = None
        """The part of an interrupted export that is kept."""
        self.replaced = False
        """True if an interrupted export was there, which is not resumed."""
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self.path.exists():
            raise ConflictError(
                f"{self.path} is there already", code="snapshotExists", hint="choose another name, or remove it"
            )
        self._file = self._open()
        try:
            self._take()
            if self._resuming:
                self.resumed = resume(self._file)
        except BaseException:
            self._file.close()
            self._file = None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError) if error is not None else self._written():
            self._file.close()  # Closing flushes, and a full disk refuses that once more.
        if error is not None and self.part.stat().st_size == 0:
            self.part.unlink()  # nothing was exported, so there is nothing to resume

    @property
    def begun(self) -> bool:
        """True when the part can be resumed."""
        return self._file is not None and self.part.exists()

    def _open(self) -> BinaryIO:
        try:
            flags = os.O_RDWR | os.O_CLOEXEC | (0 if self._resuming else os.O_CREAT)
            file = os.fdopen(os.open(self.part, flags, 0o600), "r+b")
            os.fchmod(file.fileno(), 0o600)  # earlier versions created parts that others could read
            return file
        except FileNotFoundError as error:
            if not self._resuming:
                raise _not_writable(self.path, error) from error
            raise NotExistError(
                f"there is no {self.part} to resume", code="nothingToResume", hint="export without --resume"
            ) from error
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def _take(self) -> None:
        """Lock the part, and empty it unless it is resumed. Raises ConflictError while another process writes it."""
        number = self._opened().fileno()
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(self.part.stat(), os.fstat(number)):
                raise FileNotFoundError  # the other process has just finished, and renamed it
        except (BlockingIOError, FileNotFoundError) as error:
            raise ConflictError(
                f"{self.part} is being written: another export to {self.path} is going on",
                code="snapshotExists",
                hint="wait for it, or choose another name with -o",
            ) from error
        if not self._resuming:
            self.replaced = os.fstat(number).st_size > 0
            os.ftruncate(number, 0)

    async def send(self, content: bytes) -> None:
        """Write the next bytes. Raises InternalError when the disk refuses them; the part can then be resumed."""
        with self._written():
            await asyncio.to_thread(self._opened().write, content)

    def flush(self) -> None:
        """Flush the part. Raises as `send` does."""
        with self._written():
            self._opened().flush()

    async def finish(self) -> None:
        """Make the complete file durable and give it its name. Raises as `send` does."""
        with self._written():
            await asyncio.to_thread(self._finish)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Turn errors of the disk into an error that says how to resume."""
        try:
            yield
        except OSError as error:
            raise InternalError(
                f"{self.part} cannot be written: {error.strerror}",
                code="snapshotNotWritten",
                hint="make room and export again; --resume goes on with what was written",
            ) from error

    def _finish(self) -> None:
        sync_file(self._opened())
        self.part.rename(self.path)
        sync_folder(self.path.parent)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError(f"{self.part} is not open")
        return self._file


def _not_writable(path: Path, error: OSError) -> BadRequestError:
    no_folder = isinstance(error, FileNotFoundError)
    why = f"there is no folder {path.parent}" if no_folder else error.strerror
    return BadRequestError(f"{path} cannot be written: {why}", code="snapshotNotWritten")
