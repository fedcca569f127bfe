"""Cursors of lists, and the pages of lists by name: `limit`, `sortdirection` and `cursor` of a request.

A cursor says behind what the next page begins, in which order, and which list it is of: that of another list is
refused. It is opaque to clients.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from fastapi import Depends, Query
from starlette.requests import Request

from runstream.domain.config.lists import NamePage
from runstream.errors import BadRequestError
from runstream.limits import MAX_WORD_BYTES

CURSOR_HEADER = "X-Agola-Cursor"
DEFAULT_LIMIT = 30
MAX_LIMIT = 30
"""Maximum number of entries of a page; only `limit=0` gives all."""
T = TypeVar("T")
CursorT = TypeVar("CursorT", bound=msgspec.Struct)


def encode_cursor(cursor: msgspec.Struct) -> str:
    """Return the text of a cursor."""
    return base64.b64encode(msgspec.json.encode(cursor)).decode()


def decode_cursor(text: str, kind: type[CursorT], fits: Callable[[CursorT], bool]) -> CursorT:
    """Return the cursor of a text. Raises BadRequestError `invalidCursor` for one that does not fit the list."""
    try:
        found = msgspec.json.decode(base64.b64decode(text, validate=True), type=kind)
        if not fits(found):
            raise ValueError("it belongs to another list")
    except (ValueError, RecursionError) as error:
        raise BadRequestError(
            f"{text[:80]!r} is not a cursor of this list",
            code="invalidCursor",
            hint=f"take it from the header {CURSOR_HEADER}, or the field cursor, of the page before",
        ) from error
    return found


class _Cursor(msgspec.Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    start: str
    sort_direction: str = "asc"
    of: str = ""
    """The path of the list; empty in a cursor that another system of the model made."""


class PageRequest(Generic[T]):
    """The page that a request asks for."""

    def __init__(self, page: NamePage[Any], of: str) -> None:
        self.page = page
        self._of = of

    def headers(self, last: str, *, more: bool) -> dict[str, str]:
        """Return the header with the cursor of the next page, behind this name; empty when this is the last."""
        if not more:
            return {CURSOR_HEADER: ""}
        return {CURSOR_HEADER: encode_cursor(_Cursor(last, "desc" if self.page.descending else "asc", self._of))}

    def part_of(self, found: Sequence[T]) -> tuple[Sequence[T], bool]:
        """Return the part of a list without pages, and whether more follow."""
        limit = self.page.limit
        return (found[:limit], len(found) > limit) if limit else (found, False)


Limit = Annotated[
    str, Query(max_length=20, description=f"of entries, at most {MAX_LIMIT}; 0 for all. Default: {DEFAULT_LIMIT}")
]
SortDirection = Annotated[str, Query(max_length=20, description="`asc` or `desc`, by name")]
Cursor = Annotated[str, Query(max_length=MAX_WORD_BYTES, description="of the page before; only with limit")]


def parse_limit(text: str) -> int:
    """Return a limit. Raises BadRequestError `invalidLimit`."""
    if not text:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdigit():
        raise BadRequestError(
            f"limit must be a number from 0 (got {text!r})", code="invalidLimit", hint="0 gives all entries"
        )
    return min(int(text), MAX_LIMIT)


async def _page(request: Request, limit: Limit = "", sortdirection: SortDirection = "", cursor: Cursor = "") -> Any:
    number, of = parse_limit(limit), request.url.path
    if cursor:
        if sortdirection:
            raise BadRequestError(
                "a cursor can be combined only with limit",
                code="invalidCursor",
                hint="the cursor includes the order of the list",
            )
        found = decode_cursor(
            cursor, _Cursor, lambda found: found.of in ("", of) and found.sort_direction in ("asc", "desc")
        )
        return PageRequest(NamePage(found.start, number, descending=found.sort_direction == "desc"), of)
    if sortdirection not in ("", "asc", "desc"):
        raise BadRequestError(
            f"sortdirection must be asc or desc (got {sortdirection!r})",
            code="invalidSortDirection",
            hint="leave it out for asc",
        )
    return PageRequest(NamePage("", number, descending=sortdirection == "desc"), of)


Page = Annotated[PageRequest[Any], Depends(_page)]
"""The page of a list by name, from the query."""
