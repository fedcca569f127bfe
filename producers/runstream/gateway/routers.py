"""The router that every group of API routes is made on: below PREFIX, behind the table of logins."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Depends
from fastapi.dependencies.models import Dependant
from starlette.requests import Request

from runstream.gateway.access import PREFIX, require_login
from runstream.gateway.errors import unknown_parameters


def api_router(tag: str) -> APIRouter:
    """Return a router without routes.

    The application serves its routes as they are: for a router that it includes, FastAPI would analyse each route
    once more and match each request twice.
    """
    dependencies = [Depends(require_login), Depends(_require_known_parameters)]
    return APIRouter(prefix=PREFIX, tags=[tag], dependencies=dependencies)


async def _require_known_parameters(request: Request) -> None:
    """Raise BadRequestError for query parameters that the route does not take: ignored ones would mislead."""
    if not request.scope["query_string"]:
        return
    known = list(_query_parameters(request.scope["route"].dependant))
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown:
        raise unknown_parameters(f"{request.method} {request.url.path}", unknown, known)


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for dependency in dependant.dependencies:
        yield from _query_parameters(dependency)
