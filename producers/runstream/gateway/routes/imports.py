"""POST /import: a snapshot in the place of the log, in maintenance alone (domain f.1); GET /epochs: what they left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Protocol

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.gateway.parts import Flag, answer, flag

MEDIA_TYPE = "application/x-tar"
_BODY = {"requestBody": {"required": True, "content": {MEDIA_TYPE: {}}}}


class Imports(Protocol):
    """What imports snapshots."""

    async def run(self, content: AsyncIterator[bytes], name: str, *, dry_run: bool) -> object:
        """Take a whole snapshot in, verify it, and import it unless it is a dry run; what was done.

        Raises BadRequestError outside maintenance (before anything is read) and for a file that is not right,
        ConflictError that names who is not parked, InternalError.
        """
        ...

    async def epochs(self) -> object:
        """All epochs that are not deleted."""
        ...


def import_routes(imports: Imports) -> APIRouter:
    """The import. It goes on to its end when the client leaves."""
    router = APIRouter(tags=["service"])

    @router.post("/import", openapi_extra=_BODY)
    async def run_import(
        request: Request,
        dry_run: Flag = None,
        name: Annotated[str, Query(description="what the file is called, for people", max_length=200)] = "",
    ) -> Response:
        """Import the body, which is a snapshot as GET /export gives it. Answers when it is done."""
        return answer(await imports.run(request.stream(), name or "a snapshot", dry_run=flag(dry_run)))

    @router.get("/epochs")
    async def epochs() -> Response:
        """The epochs of the log, and which of them is served."""
        return answer(await imports.epochs())

    return router
