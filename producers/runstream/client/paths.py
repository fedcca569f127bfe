"""Paths of the API: a reference, such as `org/acme/web`, is one segment of a path."""

from __future__ import annotations

from urllib.parse import quote


def api_path(*segments: str) -> str:
    """Return the path of these segments, each of which may have any characters."""
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)


def point(at: str) -> dict[str, str]:
    """Return the parameter for a point in the past; none for now."""
    return {"at": at} if at else {}
