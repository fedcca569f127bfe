"""The deployment: its executors (rules executor-13 and executor-14), and its version."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runstream.api import ExecutorList, Service
from runstream.gateway.context import AtLeast, GatewayContext, documented, json_response, no_content
from runstream.gateway.requests import ExecutorActionBody
from runstream.gateway.responses import executor_shape
from runstream.gateway.routers import api_router
from runstream.release import version


def executor_routes(context: GatewayContext) -> APIRouter:
    """Return the routes that list, drain and delete executors."""
    router = api_router("executors")

    @router.get("/executors", openapi_extra=documented(None, ExecutorList))
    async def list_executors(at_least: AtLeast) -> Response:
        """Return all executors that are not deleted, by id, lost ones included."""
        records = await context.reads.executors(at_least)
        seen = await context.sightings.seen() if context.sightings is not None else {}
        return json_response(ExecutorList(tuple(executor_shape(one, seen.get(one.executor.id)) for one in records)))

    @router.put("/executors/{executor_id}/actions", status_code=204, openapi_extra=documented(ExecutorActionBody, None))
    async def act(executor_id: str, request: Request) -> Response:
        """Assign no new tasks to an executor (`drain`; its tasks run on), or assign them again (`undrain`)."""
        body = await context.body(request, ExecutorActionBody)
        position = await context.actions.drain_executor(executor_id, draining=body.action_type == "drain")
        return no_content([position] if position else [])

    @router.delete("/executors/{executor_id}", status_code=204)
    @router.delete("/executor/{executor_id}", status_code=204, include_in_schema=False)
    async def delete(executor_id: str) -> Response:
        """Delete an executor. Its tasks stay: the scheduler finds and fails tasks without an executor."""
        position = await context.actions.delete_executor(executor_id)
        return no_content([position] if position else [])

    return router


def service_routes(context: GatewayContext) -> APIRouter:
    """Return the route of the service's version."""
    router = api_router("service")

    @router.get("/version", openapi_extra=documented(None, Service))
    async def get_version() -> Response:
        """Return the service's version and its log. Needs no token."""
        log = context.log
        return json_response(Service("gateway", version(), context.settings.namespace, log.epoch, log.partitions))

    return router
