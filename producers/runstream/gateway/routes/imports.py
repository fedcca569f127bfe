"""POST /import: replace the log by a snapshot, in maintenance (rule maintenance-4); GET /epochs: the epochs kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Protocol

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.errors import NotExistError
from runstream.gateway.live import LiveAnswer
from runstream.gateway.parts import Flag, answer, flag
from runstream.gateway.works import MEDIA_TYPE as LINES
from runstream.gateway.works import Say, Work
from runstream.limits import MAX_WORD_BYTES

MEDIA_TYPE = "application/x-tar"
_LINES = {"responses": {"200": {"description": "done; or progress, line by line", "content": {LINES: {}}}}}
_BODY = {"requestBody": {"required": True, "content": {MEDIA_TYPE: {}}}, **_LINES}
Accept = Annotated[
    str,
    Header(
        max_length=MAX_WORD_BYTES, description=f"{LINES}: how far it is, line by line; the last line is what came of it"
    ),
]


class Imports(Protocol):
    """What imports snapshots."""

    async def run(self, content: AsyncIterator[bytes], name: str, say: Say, *, dry_run: bool) -> object:
        """Take a whole snapshot in, verify it, and import it unless it is a dry run; what was done.

        Nothing is said before all of it was taken in. Raises BadRequestError outside maintenance (before anything is
        read) and for a file that is not right, ConflictError that names who is not parked, InternalError.
        """
        ...

    async def epochs(self) -> object:
        """All epochs that are not deleted."""
        ...


def import_routes(imports: Imports) -> APIRouter:
    """The import. It goes on to its end when the client leaves, and can be asked for again."""
    router = APIRouter(tags=["service"])
    works: list[Work] = []
    """The last one, and those that go on."""

    @router.post("/import", openapi_extra=_BODY)
    async def run_import(
        request: Request,
        dry_run: Flag = None,
        name: Annotated[str, Query(description="what the file is called, for people", max_length=200)] = "",
        accept: Accept = "",
    ) -> Response:
        """Import the body, which is a snapshot as GET /export gives it. Answers when it is done."""
        content, called, dry = request.stream(), name or "a snapshot", flag(dry_run)
        work = Work(called, datetime.now(UTC), lambda say: imports.run(content, called, say, dry_run=dry))
        await work.until_begun()
        works[:] = [one for one in works if not one.ended] + [work]
        return _followed(work) if LINES in accept else answer(await work.result())

    @router.get("/import", openapi_extra=_LINES)
    async def current_import(accept: Accept = "") -> Response:
        """The import that goes on at this gateway, or the last one that did; with progress up to its end."""
        work = next((one for one in reversed(works) if not one.ended), works[-1] if works else None)
        if work is None:
            raise NotExistError(
                "no import was begun at this gateway since it was started",
                code="noImport",
                hint="`runstream epochs list` shows an epoch that is loading, wherever the import goes on",
            )
        return _followed(work) if LINES in accept else answer(work.status)

    @router.get("/epochs")
    async def epochs() -> Response:
        """The epochs of the log, and which of them is served."""
        return answer(await imports.epochs())

    return router


def _followed(work: Work) -> Response:
    return LiveAnswer(work.write, media_type=LINES, headers={}, stopping=asyncio.Event())
