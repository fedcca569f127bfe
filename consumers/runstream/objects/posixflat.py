"""Objects as files under escaped names: a truly flat namespace, in plain key order. Internal: users cannot select it.

Any text is a path: `//` and a trailing `/` are ordinary characters, and an object may have the name of another object's
folder. `/` and `%` are percent-encoded; a real `/` stands after every 8 characters of the path; a path whose
length is a multiple of 8 ends in `.f`, so that no file has the name of a folder.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runstream.objects.port import Object, impossible
from runstream.objects.posix import FileObjects, described, entries

_SEGMENT = 8
_FULL = ".f"
"""Suffix of a file whose last segment is full."""
_ENCODED = re.compile("%([0-9A-F]{2})")


def escape(path: str) -> str:
    """Return the name of an object's file, relative to the folder of all objects."""
    segments = [path[start : start + _SEGMENT] for start in range(0, len(path), _SEGMENT)]
    full = _FULL if segments and len(segments[-1]) == _SEGMENT else ""
    return "/".join(map(_encoded, segments)) + full


def unescape(name: str) -> str:
    """Return the path of the object in the file with this name."""
    *folders, file = name.split("/")
    return "".join(map(_decoded, folders)) + _of_file(file)


class PosixFlatObjects(FileObjects):
    """An object storage whose files have escaped names."""

    def _names(self, path: str) -> Sequence[str]:
        try:
            path.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise impossible(path) from error
        if not path or "\0" in path:
            raise impossible(path)
        return escape(path).split("/")

    def _object_path(self, path: str) -> str:
        return path

    def _walk(self, prefix: str, start_after: str, recursive: bool) -> Iterator[Object]:
        return _walk(self._data, "", _Filter(prefix, start_after, recursive))


@dataclass(frozen=True, slots=True)
class _Filter:
    """A filter of a list's paths."""

    prefix: str
    after: str
    recursive: bool

    def path(self, path: str) -> bool:
        """Return whether the list has this object."""
        return path.startswith(self.prefix) and path > self.after and not self._deeper(path)

    def folder(self, start: str) -> bool:
        """Return whether the list may have objects whose path begins like this."""
        if not start.startswith(self.prefix):
            return self.prefix.startswith(start)
        return start >= self.after[: len(start)] and not self._deeper(start)

    def _deeper(self, path: str) -> bool:
        return not self.recursive and "/" in path[len(self.prefix) :]


def _walk(folder: Path, start: str, selected: _Filter) -> Iterator[Object]:
    """Yield the selected objects of a folder; all their paths begin with `start`."""
    found = []
    for entry in entries(folder):
        is_folder = entry.is_dir(follow_symlinks=False)
        found.append(((_decoded if is_folder else _of_file)(entry.name), is_folder, entry))
    # A file sorts before the folder of the same segment: its path is a prefix of theirs.
    for segment, is_folder, entry in sorted(found, key=lambda each: each[:2]):
        path = start + segment
        if is_folder and selected.folder(path):
            yield from _walk(folder / entry.name, path, selected)
        elif not is_folder and selected.path(path):
            with contextlib.suppress(FileNotFoundError):  # deleted since the folder was read
                yield described(path, entry.stat(follow_symlinks=False))


def _encoded(segment: str) -> str:
    encoded = segment.replace("%", "%25").replace("/", "%2F")
    # These two are existing folders.
    return encoded.replace(".", "%2E") if encoded in (".", "..") else encoded


def _decoded(name: str) -> str:
    return _ENCODED.sub(lambda found: chr(int(found[1], 16)), name)


def _of_file(name: str) -> str:
    segment = _decoded(name)
    return segment.removesuffix(_FULL) if len(segment) > _SEGMENT else segment
