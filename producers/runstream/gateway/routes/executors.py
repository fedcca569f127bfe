"""Executors: who is there, and who is not to be counted on any more (domain c.10)."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from runstream.gateway.parts import AtLeast, Parts, answer, documented, empty
from runstream.gateway.shapes import ExecutorsAnswer
from runstream.gateway.views import executor_shape


def executor_routes(parts: Parts) -> APIRouter:
    """List and delete executors."""
    router = APIRouter(tags=["executors"])

    @router.get("/executors", openapi_extra=documented(None, ExecutorsAnswer))
    async def list_executors(at_least: AtLeast) -> Response:
        """All executors that were not deleted, by id; those that are lost too."""
        records = await parts.reads.executors(at_least)
        return answer(ExecutorsAnswer([executor_shape(record) for record in records]))

    @router.delete("/executors/{executor_id}", status_code=204)
    @router.delete("/executor/{executor_id}", status_code=204, include_in_schema=False)
    async def delete(executor_id: str) -> Response:
        """Forget an executor. Its tasks are not touched: what is left without an executor is found and failed."""
        position = await parts.acting.delete_executor(executor_id)
        return empty([position] if position else [])

    return router
