"""Which texts can be paths of objects on every backend that users may select: elements between `/`.

Empty elements collapse (`a//b` is `a/b`), because neither a disk nor MinIO can tell them apart.
"""

from __future__ import annotations

from runstream.errors import BadRequestError

_LONGEST = 255
"""Bytes of one element: what file systems allow."""


def elements(path: str) -> list[str]:
    """The elements of an object's path. Raises BadRequestError for a path that cannot be one."""
    found = [element for element in path.split("/") if element]
    if not found or ".." in found or "." in found or "\0" in path or not all(map(_short, found)):
        raise impossible(path)
    return found


def impossible(path: str) -> BadRequestError:
    """The error for a text that cannot be the path of an object."""
    return BadRequestError(
        f"{path[:200]!r} cannot be the path of an object",
        code="invalidObjectPath",
        hint=f"a path has no '.' or '..', no control characters, and no element of more than {_LONGEST} bytes",
    )


def _short(element: str) -> bool:
    try:
        return len(element.encode("utf-8", "surrogateescape")) <= _LONGEST
    except UnicodeEncodeError:  # a lone surrogate is no text
        return False
