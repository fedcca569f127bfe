"""What of an interrupted export can be kept: everything up to its last whole segment.

The bytes that were on their way when it ended may be anything, so each segment is read again: its frame has a
checksum, its commits follow each other, and its description is made anew from what is there.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import BinaryIO

from runstream.errors import BadRequestError
from runstream.snapshots import manifest as m
from runstream.snapshots.checking import MAX_SEGMENT_FILE_BYTES
from runstream.snapshots.container import Entry, content, entries
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.manifest import SnapshotHeader, read_header
from runstream.snapshots.reading import SEGMENTS
from runstream.snapshots.segments import SegmentDescription, described
from runstream.snapshots.writing import Resumed


def resume(file: BinaryIO) -> Resumed | None:
    """What is there, with everything behind it cut off and the file at its end; None for nothing worth keeping.

    The file is open for reading and writing. Raises SnapshotError when it is something else than an interrupted
    export, BadRequestError when it is complete.
    """
    size = os.fstat(file.fileno()).st_size
    found = _Kept()
    whole = True
    try:
        for entry in entries(file, size):
            if entry.name == m.END:
                raise _complete()
            whole = whole and found.take(file, entry)
    except SnapshotError as error:
        if error.code == "newerSnapshot" or (size and error.code == "notASnapshot"):
            raise
    file.seek(found.end)
    file.truncate()
    return found.resumed()


def _complete() -> BadRequestError:
    return BadRequestError(
        "the export is complete: there is nothing to resume",
        code="snapshotComplete",
        hint="`runstream snapshot verify` checks it; export to another file",
    )


class _Kept:
    """What was found to be whole, from the beginning on."""

    def __init__(self) -> None:
        self.end = 0
        self._contents: dict[str, bytes] = {}
        self._header: SnapshotHeader | None = None
        self._segments: list[SegmentDescription] = []
        self._last: dict[int, SegmentDescription] = {}

    def take(self, file: BinaryIO, entry: Entry) -> bool:
        """Keep the next file; False when it cannot be kept, or belongs to what is made anew."""
        if self._header is None:
            name = m.TEXTS[len(self._contents)]
            if entry.name != name:
                raise SnapshotError(entry.name, f"it is in the place of {name}", code="notASnapshot")
            self._contents[name] = content(file, entry, m.MAX_TEXT_BYTES)
            if name != m.SNAPSHOT:
                return True
            self._header = read_header(self._contents[name])
        elif not entry.name.startswith(SEGMENTS) or not self._segment(file, entry, self._header):
            return False
        self.end = entry.end
        return True

    def _segment(self, file: BinaryIO, entry: Entry, header: SnapshotHeader) -> bool:
        try:
            segment = described(entry.name, content(file, entry, MAX_SEGMENT_FILE_BYTES), header.subjects)
        except SnapshotError:
            return False  # it was on its way when the export ended: it is exported again
        before = self._last.get(segment.partition)
        follows = segment.first == (before.last + 1 if before is not None else 1)
        if not follows or segment.partition >= header.partitions or segment.last > header.ends[segment.partition]:
            return False
        kept = replace(segment, previous=before.sha256 if before is not None else "")
        self._segments.append(kept)
        self._last[kept.partition] = kept
        return True

    def resumed(self) -> Resumed | None:
        """All of it."""
        if self._header is None:
            return None
        texts = {name: hashlib.sha256(text).hexdigest() for name, text in self._contents.items()}
        return Resumed(self._header, texts, tuple(self._segments))
