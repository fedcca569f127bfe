"""POST /runs and /createruns: how runs begin (rules create-1 to create-8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import Response

from runstream.domain.executor_task import ExecutorTask
from runstream.gateway.bodies import CreateRunBody, CreateRunsBody
from runstream.gateway.creation import Created
from runstream.gateway.parts import Parts, answer, documented
from runstream.gateway.restarting import require_no_restart
from runstream.gateway.shapes import RunAnswer, RunsCreatedAnswer, WarningShape
from runstream.gateway.submission import requested_run, requested_runs
from runstream.gateway.views import run_answer
from runstream.limits import MAX_WORD_BYTES

KeyHeader = Annotated[
    str,
    Header(
        max_length=MAX_WORD_BYTES, description="the same key and request again give the same runs, and create nothing"
    ),
]


def creating_routes(parts: Parts) -> APIRouter:
    """Create one run, or those of a file. These are the first routes: a service is asked for nothing as often."""
    router = APIRouter(tags=["runs"])

    @router.post("/runs", status_code=201, openapi_extra=documented(CreateRunBody, RunAnswer, statuses=(201, 200)))
    async def create(request: Request, idempotency_key: KeyHeader = "") -> Response:
        """Create a run of these tasks, or restart a run. It is answered once it is durable; its number comes later."""
        body, key = await parts.keyed_body(request, CreateRunBody)
        if body.run_id:
            asked = await parts.restarting.requested(body)
            return _created(asked.executions, await parts.creation.create(asked.new, key))
        require_no_restart(body)
        return _created({}, await parts.creation.create(requested_run(body), key))

    @router.post(
        "/createruns", status_code=201, openapi_extra=documented(CreateRunsBody, RunsCreatedAnswer, statuses=(201, 200))
    )
    async def create_all(request: Request, idempotency_key: KeyHeader = "") -> Response:
        """Create the runs of a configuration file whose `when` matches, in its order: all of them, or none."""
        body, key = await parts.keyed_body(request, CreateRunsBody)
        requested = await requested_runs(body, parts.configs, await parts.offers())
        created = await parts.creation.create_all(requested.runs, key)
        runs = [run_answer(one.run, one.config, {}) for one in created]
        warnings = [WarningShape(one.path, one.line or None, one.message, one.hint) for one in requested.warnings]
        shape = RunsCreatedAnswer(runs, requested.skipped, warnings)
        return answer(shape, status=_status(created), positions=[one.position for one in created])

    return router


def _created(executions: dict[str, ExecutorTask], created: Created) -> Response:
    shape = run_answer(created.run, created.config, executions)
    return answer(shape, status=_status([created]), positions=[created.position])


def _status(created: Sequence[Created]) -> int:
    """200 when an earlier request with the same key created all of them."""
    return 200 if created and all(one.repeated for one in created) else 201
