"""What a user may ask of a run or a task (rules stop-1 to stop-8): decided on its history, as the log has it now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runstream.counting import counted
from runstream.domain.actions import (
    NotAllowed,
    decide_annotate,
    decide_approve,
    decide_cancel,
    decide_pause,
    decide_resume,
    decide_stop,
)
from runstream.domain.run import Run, RunPhase
from runstream.errors import BadRequestError
from runstream.events.run import RunEvent
from runstream.gateway.bodies import RunActionBody, TaskActionBody
from runstream.gateway.locating import task_of
from runstream.gateway.parts import Parts, answer, documented, position_text
from runstream.gateway.shapes import ActionAnswer
from runstream.gateway.tokens import seen_run
from runstream.gateway.views import APPROVERS

MAX_ANNOTATIONS_BYTES = 16 << 10


def action_routes(parts: Parts) -> APIRouter:
    """Stop, cancel, pause, resume, approve, annotate."""
    router = APIRouter(tags=["actions"])

    @router.put("/runs/{run_id}/actions", openapi_extra=documented(RunActionBody, ActionAnswer))
    async def on_run(run_id: str, request: Request) -> Response:
        """Stop a running run, cancel a queued one (or `changephase` to `cancelled`), pause or resume either."""
        body = await parts.body(request, RunActionBody)
        return await _act(parts, run_id, body, lambda run: _decide(run, body))

    @router.put("/runs/{run_id}/tasks/{task_id}/actions", openapi_extra=documented(TaskActionBody, ActionAnswer))
    async def on_task(run_id: str, task_id: str, request: Request) -> Response:
        """Approve a task that waits for approval, or set its annotations."""
        body = await parts.body(request, TaskActionBody)
        _require_annotations(body)
        return await _act(parts, run_id, body, lambda run: _decide_on_task(run, task_id, body))

    return router


def _decide(run: Run, body: RunActionBody) -> Sequence[RunEvent]:
    if (decide := _DECIDE.get(body.action_type)) is not None:
        return decide(run)
    if body.phase != RunPhase.CANCELLED:
        raise BadRequestError(
            f"the phase of a run cannot be changed to {body.phase[:80]!r}",
            code="invalidPhase",
            hint="a user can change it to cancelled; everything else is the scheduler's",
        )
    return decide_cancel(run)


def _decide_on_task(run: Run, task_id: str, body: TaskActionBody) -> Sequence[RunEvent]:
    task = task_of(run, task_id)
    if body.action_type == "approve":
        return decide_approve(run, task)
    return decide_annotate(task, body.annotations)


def _require_annotations(body: TaskActionBody) -> None:
    """Raises BadRequestError when the annotations cannot be those of a task."""
    given = body.annotations
    size = sum(len(name.encode()) + len(value.encode()) for name, value in given.items())
    if given and body.action_type == "approve":
        problem = "an approval takes no annotations"
    elif APPROVERS in given:
        problem = f"the annotation {APPROVERS!r} says who approved the task, and cannot be set"
    elif size > MAX_ANNOTATIONS_BYTES:
        problem = f"the annotations take {counted(size, 'byte')}; a task has at most {MAX_ANNOTATIONS_BYTES}"
    else:
        return
    raise BadRequestError(problem, code="invalidAnnotations", hint="keep larger things elsewhere, and note where")


_DECIDE: dict[str, Callable[[Run], Sequence[RunEvent]]] = {
    "stop": decide_stop,
    "cancel": decide_cancel,
    "pause": decide_pause,
    "resume": decide_resume,
}


async def _act(
    parts: Parts, run_id: str, body: RunActionBody | TaskActionBody, decide: Callable[[Run], Sequence[RunEvent]]
) -> Response:
    phase = ""

    def decided(run: Run) -> Sequence[RunEvent]:
        nonlocal phase
        phase = run.phase.value
        return decide(run)

    try:
        position = await parts.acting.on_run(run_id, decided, seen_run(body.change_groups_update_tokens))
    except NotAllowed as refusal:
        details = {"run": run_id, "phase": phase}
        raise BadRequestError(str(refusal), code=refusal.code, details=details, hint=refusal.allowed) from refusal
    text = position_text(position) if position else ""
    return answer(ActionAnswer(text), positions=[position] if position else [])
