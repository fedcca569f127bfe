"""Optimistic tokens (rule stop-8): an action that rests on what somebody saw is refused when that has changed since.

A token says which version of which run was seen, under the names that the client chose. The names mean nothing: what is
compared is the run. Nothing is kept for a token, so it never expires.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from runstream.errors import BadRequestError


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A run as somebody saw it."""

    run_id: str
    version: int
    """Of the run's own history: changes of its executor tasks do not count."""


class _Token(msgspec.Struct):
    change_groups_values: dict[str, str]


def token_of(names: Iterable[str], run_id: str, version: int) -> str:
    """The token for a run as it was read; empty without names."""
    values = dict.fromkeys(names, f"{run_id}@{version}")
    return base64.b64encode(msgspec.json.encode(_Token(values))).decode() if values else ""


def seen_run(token: str) -> SeenRun | None:
    """What a token says; None for an empty one, or one without names. Raises BadRequestError for what is none."""
    if not token:
        return None
    try:
        values = set(
            msgspec.json.decode(base64.b64decode(token, validate=True), type=_Token).change_groups_values.values()
        )
        if not values:
            return None
        (value,) = values
        run_id, _, version = value.partition("@")
        return SeenRun(run_id, int(version))
    except (ValueError, RecursionError) as error:
        raise BadRequestError(
            "change_groups_update_tokens is not a token",
            code="invalidChangeGroupsToken",
            hint="take it as GET /runs/{run_id}?changegroup=NAME answered it",
        ) from error
