"""Objects as files with their own paths.

An object with the path of another's folder cannot be stored, and empty path elements collapse. Order is that
of a walk with the names of each folder sorted: `file04/a` comes before `file041`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from runstream.errors import BadRequestError
from runstream.objects.elements import elements
from runstream.objects.files import FileObjects, described, entries
from runstream.objects.port import Object


class PosixObjects(FileObjects):
    """The object storage in a folder of the local disk."""

    def _names(self, path: str) -> Sequence[str]:
        return elements(path)

    def _object_path(self, path: str) -> str:
        return "/".join(elements(path))

    def _walk(self, prefix: str, start_after: str, recursive: bool) -> Iterator[Object]:
        if start_after and not start_after.startswith(prefix):
            raise BadRequestError(
                f"start_after {start_after[:200]!r} does not begin with the prefix {prefix[:200]!r}",
                code="invalidStartAfter",
            )
        after = tuple(start_after.split("/")) if start_after else ()
        return _walk(self._data, "", prefix, after, recursive)


def _walk(folder: Path, path: str, prefix: str, after: tuple[str, ...], recursive: bool) -> Iterator[Object]:
    """The objects below `folder`, whose own path is `path` (empty or with a `/` at its end)."""
    for entry in sorted(entries(folder), key=lambda entry: entry.name):
        name = path + entry.name
        names = tuple(name.split("/"))
        if entry.is_dir(follow_symlinks=False):
            below = name + "/"
            inside = below.startswith(prefix)
            ahead = names < after[: len(names)]
            if not ahead and (prefix.startswith(below) or (inside and recursive)):
                yield from _walk(folder / entry.name, below, prefix, after, recursive)
        elif name.startswith(prefix) and (not after or names > after):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                yield described(name, entry.stat(follow_symlinks=False))
