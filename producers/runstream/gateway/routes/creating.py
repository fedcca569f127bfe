"""POST /runs and /createruns: how runs begin (domain c.2, b.2)."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runstream.gateway.bodies import CreateRunBody, CreateRunsBody
from runstream.gateway.parts import Parts, answer, documented
from runstream.gateway.shapes import RunAnswer, RunsCreatedAnswer
from runstream.gateway.submission import requested_run, requested_runs
from runstream.gateway.views import run_answer


def creating_routes(parts: Parts) -> APIRouter:
    """Create one run, or those of a file. These are the first routes: a service is asked for nothing as often."""
    router = APIRouter(tags=["runs"])

    @router.post("/runs", status_code=201, openapi_extra=documented(CreateRunBody, RunAnswer, status=201))
    async def create(request: Request) -> Response:
        """Create a run of these tasks. It is answered once it is durable; its number is given later."""
        created = await parts.creation.create(requested_run(await parts.body(request, CreateRunBody)))
        return answer(run_answer(created.run, created.config, {}), status=201, positions=[created.position])

    @router.post(
        "/createruns", status_code=201, openapi_extra=documented(CreateRunsBody, RunsCreatedAnswer, status=201)
    )
    async def create_all(request: Request) -> Response:
        """Create the runs of a configuration file whose `when` matches, in its order: all of them, or none."""
        body = await parts.body(request, CreateRunsBody)
        requested = await requested_runs(body, parts.configs, parts.keyring)
        created = await parts.creation.create_all(requested.runs)
        runs = [run_answer(one.run, one.config, {}) for one in created]
        shape = RunsCreatedAnswer(runs, requested.skipped, requested.warnings)
        return answer(shape, status=201, positions=[one.position for one in created])

    return router
