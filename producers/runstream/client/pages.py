"""Lists that the service returns in pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TypeVar

from runstream.client.errors import ClientError
from runstream.client.session import Session

T = TypeVar("T")

PAGE = 30
"""Items of a page: the most that the service gives."""


async def pages(
    session: Session, path: str, kind: type[T], params: Mapping[str, str] | None = None
) -> AsyncGenerator[T, None]:
    """Yield each page of a list, read when it is wanted. Raises ClientError."""
    query: dict[str, str] = {"limit": str(PAGE), **(params or {})}
    while True:
        page, cursor = await session.read_page(path, kind, query)
        yield page
        if not cursor:
            return
        if cursor == query.get("cursor"):
            raise ClientError(
                f"the list {path} does not end: its cursor repeats",
                kind="remote",
                code="unexpectedAnswer",
                hint="is it a Runstream service, of a version that fits this client?",
            )
        query["cursor"] = cursor


async def items(
    session: Session, path: str, kind: type[list[T]], params: Mapping[str, str] | None = None
) -> AsyncGenerator[T, None]:
    """Yield each item of a list whose pages are lists. Raises ClientError."""
    async for page in pages(session, path, kind, params):
        for item in page:
            yield item
