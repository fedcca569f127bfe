"""Paths of the API: a reference, such as `org/acme/web`, is one segment of a path."""

from __future__ import annotations

from urllib.parse import quote

from runstream.client.errors import ClientError

_RELATIVE = frozenset({".", "..", ""})
"""Segments that HTTP clients and proxies resolve (also when escaped): `/projects/web/secrets/..` names the project."""


def api_path(*segments: str) -> str:
    """Return the path of these segments, which may have any characters.

    Raises ClientError (bad-request, `invalidName`) for a segment that would change which resource the path names.
    """
    for segment in segments:
        if segment in _RELATIVE:
            raise ClientError(
                f"{segment!r} is not a name" if segment else "a name is empty",
                kind="bad-request",
                code="invalidName",
                hint="name the thing by its name, path or id",
            )
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)


def point(at: str) -> dict[str, str]:
    """Return the parameter for a point in the past; none for now."""
    return {"at": at} if at else {}
