"""Runs: create them, read them, act on them, and ask why they wait (docs/reference/api.md).

Rules create-1 to create-8 and stop-1 to stop-8 hold here. Actions are decided on the run's history as the log has it
now. In maintenance the middleware answers why a run waits, because the components behind it are parked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter, Header, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from runstream.api import ConfigWarning, Page, Reason, Why
from runstream.commits import parse_point
from runstream.counting import counted
from runstream.database.run_lists import DEFAULT_LIMIT, MAX_LIMIT, RunPage, RunQuery
from runstream.database.runs import ReadRun
from runstream.domain.actions import (
    NotAllowed,
    decide_annotate,
    decide_approve,
    decide_cancel,
    decide_delete,
    decide_pause,
    decide_resume,
    decide_stop,
)
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import RunState
from runstream.domain.why import Explanation
from runstream.errors import BadRequestError, ConflictError, NotExistError
from runstream.events.run import RunEvent
from runstream.gateway.context import (
    AtLeast,
    Flag,
    GatewayContext,
    WithConfig,
    documented,
    flag,
    json_response,
    no_content,
)
from runstream.gateway.reads import cursor_with_parameters, decode_cursor, next_cursor
from runstream.gateway.requests import CreateRunBody, CreateRunsBody, RunActionBody, TaskActionBody
from runstream.gateway.responses import APPROVERS, ActionAnswer, RunAnswer, RunsCreatedAnswer, run_answer
from runstream.gateway.routers import api_router
from runstream.gateway.run_access import (
    Wish,
    require_cache_group,
    require_group,
    require_groups,
    require_run,
    require_seen,
)
from runstream.gateway.runs.actions import parse_token, update_token
from runstream.gateway.runs.create import CreatedRun
from runstream.gateway.runs.prepare import prepare_run, prepare_runs
from runstream.gateway.runs.repository_paths import require_allowed_repositories
from runstream.gateway.runs.restart import require_no_restart
from runstream.gateway.sender import Sender, sender_of
from runstream.ids import require_uuid
from runstream.limits import MAX_NAME_BYTES, MAX_WORD_BYTES, require_group_size
from runstream.log.runs import task_of
from runstream.run_states import RunPhase, RunResult

KeyHeader = Annotated[
    str,
    Header(
        max_length=MAX_WORD_BYTES,
        description="the same key and request give the same runs, and create nothing again",
    ),
]


def creating_routes(context: GatewayContext) -> APIRouter:
    """Return the routes that create runs. They come first, since they are the most frequent requests."""
    router = api_router("runs")

    @router.post("/runs", status_code=201, openapi_extra=documented(CreateRunBody, RunAnswer, statuses=(201, 200)))
    async def create(request: Request, idempotency_key: KeyHeader = "") -> Response:
        """Create a run of these tasks, or restart a run. Responds once the run is durable; its number follows later."""
        body, key = await context.keyed_body(request, CreateRunBody)
        sender = sender_of(request)
        if body.run_id:
            # Another environment, or other values, are another run than the one that members may repeat.
            other = body.environment is not None or body.fresh is not None
            await require_run(context, sender, body.run_id, Wish.CREATE if other else Wish.ACT)
            prepared = await context.restarts.prepare(body)
            if other:
                require_allowed_repositories(context.allowed_sources, sender, [prepared.new.config])
            return _created(
                prepared.executions, await context.creation.create(prepared.new, key, author=sender.run_author)
            )
        require_no_restart(body)
        require_group(context, sender, body.group, Wish.CREATE)
        require_cache_group(context, sender, body.group, body.cache_group)
        new = prepare_run(body)
        require_allowed_repositories(context.allowed_sources, sender, [new.config])
        return _created({}, await context.creation.create(new, key, author=sender.run_author))

    @router.post(
        "/createruns", status_code=201, openapi_extra=documented(CreateRunsBody, RunsCreatedAnswer, statuses=(201, 200))
    )
    async def create_all(request: Request, idempotency_key: KeyHeader = "") -> Response:
        """Create the runs of a configuration file whose `when` matches, in the file's order: all or none."""
        body, key = await context.keyed_body(request, CreateRunsBody)
        require_group(context, sender_of(request), body.group, Wish.CREATE)
        requested = await prepare_runs(body, context.configs, await context.offers())
        for one in requested.runs:
            require_group(context, sender_of(request), one.group, Wish.CREATE)
            require_cache_group(context, sender_of(request), one.group, one.config.cache_group)
        require_allowed_repositories(
            context.allowed_sources, sender_of(request), (one.config for one in requested.runs)
        )
        created = await context.creation.create_all(requested.runs, key, author=sender_of(request).run_author)
        runs = [run_answer(one.run, one.config, {}) for one in created]
        warnings = tuple(ConfigWarning(one.path, one.line or None, one.message, one.hint) for one in requested.warnings)
        shape = RunsCreatedAnswer(runs, tuple(requested.skipped), warnings)
        return json_response(shape, status=_status(created), positions=[one.position for one in created])

    return router


def _created(executions: dict[str, ExecutorTask], created: CreatedRun) -> Response:
    shape = run_answer(created.run, created.config, executions)
    return json_response(shape, status=_status([created]), positions=[created.position])


def _status(created: Sequence[CreatedRun]) -> int:
    """Return 200 when an earlier request with the same key created all of them, else 201."""
    return 200 if created and all(one.repeated for one in created) else 201


_MAX_CURSOR_BYTES = 1 << 15
"""Maximum size of a cursor, which holds the groups and names of its list."""
Phases = Annotated[list[RunPhase], Query(description="one of these phases; repeated")]
Results = Annotated[list[RunResult], Query(description="one of these results; repeated")]
Cursor = Annotated[
    str, Query(max_length=_MAX_CURSOR_BYTES, description="of the page before; it includes which runs the list is of")
]
ChangeGroups = Annotated[
    list[Annotated[str, Field(max_length=MAX_WORD_BYTES)]],
    Query(description="names for an update token that actions may carry; repeated"),
]
At = Annotated[
    str,
    Query(max_length=MAX_WORD_BYTES, description="show the run as of this time (with zone) or position"),
]
Groups = Annotated[
    list[Annotated[str, Field(max_length=MAX_WORD_BYTES)]], Query(description="this group or one below it; repeated")
]


def run_routes(context: GatewayContext) -> APIRouter:
    """Return the routes that get and list runs."""
    router = api_router("runs")

    @router.get("/runs", openapi_extra=documented(None, Page))
    async def list_runs(
        request: Request,
        at_least: AtLeast,
        group: Groups = [],  # noqa: B006  FastAPI copies it
        phase: Phases = [],  # noqa: B006
        result: Results = [],  # noqa: B006
        name: Annotated[str, Query(max_length=MAX_WORD_BYTES, description="runs of this name")] = "",
        text: Annotated[
            str,
            Query(
                max_length=MAX_NAME_BYTES,
                description="`12` or `#12`: of this number; 7 to 64 hexadecimal digits: of a commit that begins with "
                "them; 7, 8, or 15 and more characters of an id: whose id begins with them; else: with this text in "
                "the name, the group or the value of an annotation, in any case",
            ),
        ] = "",
        waitingapproval: Flag = None,
        lastrun: Flag = None,
        counts: Flag = None,
        tasks: Flag = None,
        start: Annotated[int, Query(ge=0, lt=1 << 63, description="behind the run of this sequence")] = 0,
        limit: Annotated[
            int, Query(ge=1, lt=1 << 63, description=f"at most {MAX_LIMIT}, whatever is asked for")
        ] = DEFAULT_LIMIT,
        asc: Flag = None,
        cursor: Cursor = "",
    ) -> Response:
        """Return a page of runs, the latest first unless `asc`; with `counts`, how many there are by phase and result.

        With `tasks` it says how many tasks each run has in each status.

        `lastrun` selects the last matching run of each group. A page can have fewer runs than its limit although more
        follow: a request reads a bounded number of runs.
        """
        query = RunQuery(
            groups=tuple(group),
            phases=tuple(phase),
            results=tuple(result),
            name=_storable(name),
            text=_storable(text.strip()),
            waiting_approval=flag(waitingapproval),
            last_run=flag(lastrun),
            start=start,
            limit=min(limit, MAX_LIMIT),
            ascending=flag(asc),
        )
        if cursor and group:
            raise cursor_with_parameters()
        query = decode_cursor(cursor, query) if cursor else query
        query = replace(query, groups=require_groups(context, sender_of(request), query.groups))
        page = await context.reads.runs(query, at_least, counts=flag(counts), tasks=flag(tasks))
        return _page(page, page.next_start, next_cursor(query, page))

    @router.get("/runs/{run_id}", openapi_extra=documented(None, RunAnswer))
    async def get(
        request: Request,
        run_id: str,
        at_least: AtLeast,
        at: At = "",
        changegroup: ChangeGroups = [],  # noqa: B006
        config: WithConfig = "true",
    ) -> Response:
        """Return one run with its tasks and its run config; with `at`, as it was then."""
        require_uuid(run_id, "run id")
        sender = sender_of(request)
        if at:
            await require_run(context, sender, run_id, Wish.SEE)
            return _answer(await context.past.run(run_id, parse_point(at)), with_config=flag(config))
        try:
            read = await context.reads.run(run_id, at_least)
        except NotExistError:
            await require_run(context, sender, run_id, Wish.SEE)
            raise
        require_seen(context, sender, run_id, read.record.run.group)
        return _answer(read, changegroup, with_config=flag(config))

    return router


def group_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of a group's runs; the group is one escaped segment of the path."""
    router = api_router("runs")

    @router.get("/runs/group/{escaped_group:path}", openapi_extra=documented(None, Page, RunAnswer))
    async def by_group(
        request: Request,
        at_least: AtLeast,
        phase: Phases = [],  # noqa: B006  FastAPI copies it
        result: Results = [],  # noqa: B006
        start: Annotated[int, Query(ge=0, lt=1 << 63, description="behind the run of this number")] = 0,
        limit: Annotated[int, Query(ge=0, lt=1 << 63, description="0 for as many as a page has")] = 0,
        sortdirection: Annotated[str, Query(pattern="^(asc|desc)?$")] = "",
        cursor: Cursor = "",
        changegroup: ChangeGroups = [],  # noqa: B006
    ) -> Response:
        """Return the runs of a group; with `/{counter}` behind the group, the run of that number."""
        group, counter = _group_and_counter(request)
        require_group(context, sender_of(request), group)
        if counter is not None:
            return _answer(await context.reads.run_by_counter(group, counter, at_least), changegroup)
        query = RunQuery(
            groups=(group,),
            phases=tuple(phase),
            results=tuple(result),
            start_counter=start,
            limit=min(limit or MAX_LIMIT, MAX_LIMIT),
            ascending=sortdirection == "asc",
        )
        if cursor and sortdirection:
            raise cursor_with_parameters()
        query = decode_cursor(cursor, query) if cursor else query
        page = await context.reads.runs(query, at_least)
        next_start = page.runs[-1].counter if page.runs and page.next_start is not None else None
        return _page(page, next_start, next_cursor(query, page))

    return router


def _storable(filtered: str) -> str:
    """Return the text of a filter. Raises BadRequestError for NUL, which no text in the database has."""
    if "\0" in filtered:
        raise BadRequestError("a filter has the character NUL", code="nulCharacter", hint="leave it out")
    return filtered


def _page(page: RunPage, next_start: int | None, cursor: str) -> Response:
    shape = Page(page.runs, next_start, cursor, page.counts, page.tasks)
    headers = {"X-Agola-HasMore": str(bool(cursor)).lower(), "X-Agola-Cursor": cursor}
    return json_response(shape, headers=headers)


def _answer(read: ReadRun, names: Sequence[str] = (), *, with_config: bool = True) -> Response:
    record = read.record
    shape = run_answer(record.run, read.config, record.executor_tasks, with_config=with_config)
    token = update_token(names, record.run.id, record.head.version)
    return json_response(msgspec.structs.replace(shape, change_groups_update_tokens=token) if token else shape)


def _group_and_counter(request: Request) -> tuple[str, int | None]:
    """Return the group and the number of the path; only the raw path tells an escaped group from what follows it."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    segments = raw.decode("latin-1").partition("/runs/group/")[2].split("/")
    if len(segments) == 1:
        return require_group_size(unquote(segments[0])), None
    number = segments[1]
    if len(segments) > 2 or not number.isascii() or not number.isdigit() or len(number) > 18:
        raise BadRequestError(
            f"{'/'.join(segments[1:])[:80]!r} is not a run number",
            code="invalidRunNumber",
            hint="the path is /runs/group/{group}/{number}, the slashes of the group escaped as %2F",
        )
    return require_group_size(unquote(segments[0])), int(number)


_PATH = re.compile(r"/api/v1alpha/runs/([^/]+)/why")


def why_routes(context: GatewayContext) -> APIRouter:
    """Return the route that explains why a run waits."""
    router = api_router("runs")

    @router.get("/runs/{run_id}/why", openapi_extra=documented(None, Why))
    async def why(request: Request, run_id: str) -> Response:
        """Return why a run waits, as the scheduler that decides about it explains it."""
        await require_run(context, sender_of(request), run_id, Wish.SEE)
        return json_response(_shape(run_id, await context.explainer.why(run_id)))

    return router


def in_maintenance(method: str, path: str, reason: str) -> Response | None:
    """Return the answer to this question in maintenance, None to other requests; `reason` continues the sentence."""
    match = _PATH.fullmatch(path)
    if match is None or method != "GET":
        return None
    found = Reason("maintenance", f"the service is in maintenance{reason}: nothing is decided", (), {})
    return json_response(Why(match[1], "", "", (found,)))


def _shape(run_id: str, found: Explanation) -> Why:
    reasons = tuple(Reason(one.code, one.message, one.tasks, one.details) for one in found.reasons)
    return Why(run_id, found.phase.value, found.result.value, reasons, found.omitted)


MAX_ANNOTATIONS_BYTES = 16 << 10


def action_routes(context: GatewayContext) -> APIRouter:
    """Return the routes that stop, cancel, pause, resume, delete, approve and annotate."""
    router = api_router("actions")

    @router.put("/runs/{run_id}/actions", openapi_extra=documented(RunActionBody, ActionAnswer))
    async def on_run(run_id: str, request: Request) -> Response:
        """Stop a running run, cancel a queued one (or `changephase` to `cancelled`), pause or resume either."""
        body = await context.body(request, RunActionBody)
        await require_run(context, sender_of(request), run_id, Wish.ACT)
        return await _act(context, sender_of(request), run_id, body, lambda run: _decide(run, body))

    @router.delete("/runs/{run_id}", status_code=204)
    async def delete(request: Request, run_id: str) -> Response:
        """Delete a run that has ended, and the logs and archives that no other run refers to.

        It stays in the log: `at` shows it as it was.
        """
        await require_run(context, sender_of(request), run_id, Wish.DELETE)
        try:
            author = sender_of(request).run_author
            position = await context.actions.on_run(run_id, decide_delete, author=author)
        except NotAllowed as refusal:
            raise ConflictError(
                str(refusal), code=refusal.code, details={"run": run_id}, hint=refusal.allowed
            ) from refusal
        return no_content([position] if position else [])

    @router.put("/runs/{run_id}/tasks/{task_id}/actions", openapi_extra=documented(TaskActionBody, ActionAnswer))
    async def on_task(run_id: str, task_id: str, request: Request) -> Response:
        """Approve a task that waits for approval, or set its annotations."""
        body = await context.body(request, TaskActionBody)
        _require_annotations(body)
        wish = Wish.APPROVE if body.action_type == "approve" else Wish.ACT
        await require_run(context, sender_of(request), run_id, wish)
        return await _act(context, sender_of(request), run_id, body, lambda run: _decide_on_task(run, task_id, body))

    return router


def _decide(run: RunState, body: RunActionBody) -> Sequence[RunEvent]:
    if (decide := _DECIDE.get(body.action_type)) is not None:
        return decide(run)
    if body.phase != RunPhase.CANCELLED:
        raise BadRequestError(
            f"the phase of a run cannot be changed to {body.phase[:80]!r}",
            code="invalidPhase",
            hint="a user can change it to cancelled; the scheduler sets all other phases",
        )
    return decide_cancel(run)


def _decide_on_task(run: RunState, task_id: str, body: TaskActionBody) -> Sequence[RunEvent]:
    task = task_of(run, task_id)
    if body.action_type == "approve":
        return decide_approve(run, task)
    return decide_annotate(task, body.annotations)


def _require_annotations(body: TaskActionBody) -> None:
    """Raise BadRequestError for annotations that a task cannot have."""
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
    raise BadRequestError(problem, code="invalidAnnotations", hint="store larger texts elsewhere, and annotate where")


_DECIDE: dict[str, Callable[[RunState], Sequence[RunEvent]]] = {
    "stop": decide_stop,
    "cancel": decide_cancel,
    "pause": decide_pause,
    "resume": decide_resume,
}


async def _act(
    context: GatewayContext,
    sender: Sender,
    run_id: str,
    body: RunActionBody | TaskActionBody,
    decide: Callable[[RunState], Sequence[RunEvent]],
) -> Response:
    phase = ""

    def decided(run: RunState) -> Sequence[RunEvent]:
        nonlocal phase
        phase = run.phase.value
        return decide(run)

    try:
        seen = parse_token(body.change_groups_update_tokens)
        position = await context.actions.on_run(run_id, decided, seen, author=sender.run_author)
    except NotAllowed as refusal:
        details = {"run": run_id, "phase": phase}
        raise BadRequestError(str(refusal), code=refusal.code, details=details, hint=refusal.allowed) from refusal
    return json_response(ActionAnswer(str(position or "")), positions=[position] if position else [])
