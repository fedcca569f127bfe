"""The runs of a project, and the direct runs of a user, by number: read them, act on them, their logs.

Paths, fields and statuses are those that the clients of the model know. Who may do what with a run is decided on the
project or user of the path, which its group begins with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.api import OwnedRun, OwnedTask, RunSummary
from runstream.codec import decode
from runstream.commits import Position
from runstream.database.run_lists import MAX_LIMIT, RunPage, RunQuery
from runstream.database.runs import ReadRun
from runstream.domain.actions import NotAllowed, decide_approve_ahead, decide_cancel, decide_stop
from runstream.domain.config.organization import Organization
from runstream.domain.config.permissions import (
    OK,
    Action,
    acting_on_runs,
    reading,
    reading_runs,
    refusal,
    require,
    status,
)
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import find_project, find_user
from runstream.domain.config.seeing import find_seen
from runstream.domain.config.state import ConfigState
from runstream.domain.config.user import User
from runstream.domain.run import RunState, RunTask
from runstream.errors import BadRequestError, NotExistError, RunstreamError
from runstream.events.run import RunEvent, RunNumbered
from runstream.gateway.config_requests import Ref
from runstream.gateway.context import AtLeast, Flag, GatewayContext, documented, flag, json_response, no_content
from runstream.gateway.cursors import CURSOR_HEADER, decode_cursor, encode_cursor
from runstream.gateway.errors import JSON_TYPE
from runstream.gateway.open_access import access_of
from runstream.gateway.requests import CreateRunBody, OwnedRunActionBody, OwnedTaskActionBody
from runstream.gateway.routers import api_router
from runstream.gateway.routes.logs import WantedLog, delete_log, send_log, step_number
from runstream.gateway.routes.runs import Phases, Results
from runstream.gateway.run_access import require_seen
from runstream.gateway.run_views import run_view, summary_view, task_view
from runstream.gateway.runs.create import CreatedRun
from runstream.gateway.sender import Sender, sender_of
from runstream.gateway.streaming import LiveResponse, SendBytes
from runstream.limits import MAX_WORD_BYTES
from runstream.log.runs import find_run, task_of
from runstream.run_states import RunPhase, RunResult
from runstream.subjects import Address

DEFAULT_RUNS = 30
NUMBER_SECONDS = 2.0
"""Maximum wait for the number of a new run."""
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class _Owner:
    """The kind of owner that a path names."""

    prefix: str
    find: Callable[[ConfigState, str], Project | User]


_OWNERS = (_Owner("/projects", find_project), _Owner("/users", find_user))


def owned_run_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of the runs of projects and users."""
    router = api_router("runs")
    for owner in _OWNERS:
        _reading(router, context, owner)
        _acting(router, context, owner)
        _logs(router, context, owner)
    return router


class _RunCursor(msgspec.Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    start_run_counter: int
    sort_direction: Literal["asc", "desc"]
    sub_group: str = ""
    phase_filter: list[RunPhase] | None = None
    result_filter: list[RunResult] | None = None
    of: str = ""
    """The group of the list's owner; empty in a cursor that another system of the model made."""


def _reading(router: APIRouter, context: GatewayContext, of: _Owner) -> None:
    @router.get(f"{of.prefix}/{{ref}}/runs", openapi_extra=documented(None))
    async def list_runs(
        request: Request,
        ref: Ref,
        at_least: AtLeast,
        start: Annotated[str, Query(max_length=20, description="behind the run of this number")] = "",
        subgroup: Annotated[str, Query(max_length=MAX_WORD_BYTES, description="such as branch/main, escaped")] = "",
        phase: Phases = [],  # noqa: B006  FastAPI copies it
        result: Results = [],  # noqa: B006
        limit: Annotated[str, Query(max_length=20, description="at most 30, the default; 0 for all")] = "",
        sortdirection: Annotated[str, Query(max_length=20)] = "",
        cursor: Annotated[str, Query(max_length=MAX_WORD_BYTES)] = "",
    ) -> Response:
        """Return runs by number, the latest first; the header X-Agola-Cursor gives the next page."""
        owner = _readable(context, request, of, ref)
        if cursor:
            if start or subgroup or phase or result or sortdirection:
                raise BadRequestError(
                    "a cursor can be combined only with limit",
                    code="invalidCursor",
                    hint="the cursor includes which runs the list is of, and their order",
                )
            wanted = decode_cursor(
                cursor,
                _RunCursor,
                lambda found: found.of in ("", _root(owner)) and 0 <= found.start_run_counter < 1 << 63,
            )
        else:
            if sortdirection not in ("", "asc", "desc"):
                raise BadRequestError(
                    f"sortdirection must be asc or desc (got {sortdirection!r})", code="invalidSortDirection"
                )
            direction: Literal["asc", "desc"] = "asc" if sortdirection == "asc" else "desc"
            begin = run_number(start) if start else 0
            wanted = _RunCursor(begin, direction, subgroup, phase or None, result or None, _root(owner))
        if not (most := _limit(limit)):
            return await _all_runs(context, _root(owner), wanted, at_least)
        runs, more = await _page(context, _root(owner), _query(_root(owner), wanted, most), at_least)
        following = msgspec.structs.replace(wanted, start_run_counter=runs[-1].counter) if more else None
        headers = {CURSOR_HEADER: encode_cursor(following) if following else ""}
        return json_response([summary_view(run) for run in runs], headers=headers)

    @router.get(f"{of.prefix}/{{ref}}/runs/{{number}}", openapi_extra=documented(None, OwnedRun))
    async def get_run(request: Request, ref: Ref, number: str, at_least: AtLeast) -> Response:
        """Return a run."""
        read = await _run(context, _readable(context, request, of, ref), number, at_least)
        return json_response(run_view(read.record.run, read.config, _user_ids(context)))

    @router.get(f"{of.prefix}/{{ref}}/runs/{{number}}/tasks/{{task}}", openapi_extra=documented(None, OwnedTask))
    async def get_task(request: Request, ref: Ref, number: str, task: str, at_least: AtLeast) -> Response:
        """Return a task of a run, with its steps."""
        read = await _run(context, _readable(context, request, of, ref), number, at_least)
        return json_response(task_view(read, _task(read.record.run, task), _user_ids(context)))


def _acting(router: APIRouter, context: GatewayContext, of: _Owner) -> None:
    @router.put(f"{of.prefix}/{{ref}}/runs/{{number}}/actions", openapi_extra=documented(OwnedRunActionBody, OwnedRun))
    async def on_run(request: Request, ref: Ref, number: str) -> Response:
        """Restart, cancel or stop a run; returns the new run, or the run as it was before."""
        sender, state = sender_of(request), context.config.state
        owner = of.find(state, ref)
        require(state, sender.actor, acting_on_runs(owner), owner)
        body = await context.body(request, OwnedRunActionBody)
        read = await _run(context, owner, number, ())
        if body.action_type == "restart":
            return await _restarted(context, sender, read, from_start=body.from_start)
        decide = decide_cancel if body.action_type == "cancel" else decide_stop
        position = await _act(context, sender, read.record.run, decide)
        return json_response(
            run_view(read.record.run, read.config, _user_ids(context)), positions=[position] if position else []
        )

    @router.put(
        f"{of.prefix}/{{ref}}/runs/{{number}}/tasks/{{task}}/actions", openapi_extra=documented(OwnedTaskActionBody)
    )
    async def on_task(request: Request, ref: Ref, number: str, task: str) -> Response:
        """Approve a task; one that does not wait for it yet will not wait."""
        sender, state = sender_of(request), context.config.state
        owner = of.find(state, ref)
        require(state, sender.actor, Action.APPROVE, owner)
        await context.body(request, OwnedTaskActionBody)
        read = await _run(context, owner, number, ())
        approved = _task(read.record.run, task).id
        position = await _act(
            context, sender, read.record.run, lambda run: decide_approve_ahead(task_of(run, approved), sender.author)
        )
        done = no_content([position] if position else [])
        done.status_code = 200
        return done


def _logs(router: APIRouter, context: GatewayContext, of: _Owner) -> None:
    path = f"{of.prefix}/{{ref}}/runs/{{number}}/tasks/{{task}}/logs"

    @router.get(path)
    async def get_log(
        request: Request, ref: Ref, number: str, task: str, setup: Flag = None, step: str | None = None,
        follow: Flag = None,
    ) -> Response:  # fmt: skip
        """Send the log of a step, or of the setup; with `follow` until it ends."""
        wanted = step_number(flag(setup), step, None)
        read = await _run(context, _readable(context, request, of, ref), number, ())
        run = read.record.run
        following = access_of(context, request, partial(_require_seen, context, run)) if flag(follow) else None
        return await send_log(context, WantedLog(run.id, _task(run, task).id, wanted, None), following=following)

    @router.delete(path, status_code=204)
    async def delete_logs(
        request: Request, ref: Ref, number: str, task: str, setup: Flag = None, step: str | None = None
    ) -> Response:
        """Delete a log that is stored."""
        sender, state = sender_of(request), context.config.state
        owner = of.find(state, ref)
        require(state, sender.actor, Action.DELETE_LOGS, owner)
        wanted = step_number(flag(setup), step, None)
        run = (await _run(context, owner, number, ())).record.run
        position = await delete_log(context, WantedLog(run.id, _task(run, task).id, wanted, None), sender.author)
        return no_content([position] if position else [])


def _require_seen(context: GatewayContext, run: RunState, sender: Sender) -> None:
    require_seen(context, sender, run.id, run.group)


def _readable(context: GatewayContext, request: Request, of: _Owner, ref: str) -> Project | User:
    """Return the owner whose runs the sender may read. Raises the refusal."""
    state, actor = context.config.state, sender_of(request).actor

    def refused(thing: User | Organization | ProjectGroup | Project) -> RunstreamError | None:
        action = reading_runs(state, thing) if isinstance(thing, Project | User) else reading(state, thing)
        answer = status(state, actor, action, thing)
        return None if answer == OK else refusal(answer, action, thing, actor)

    return find_seen(state, of.find, ref, refused)


def _root(owner: Project | User) -> str:
    return f"/project/{owner.id}" if isinstance(owner, Project) else f"/user/{owner.id}"


async def _run(context: GatewayContext, owner: Project | User, number: str, at_least: Sequence[Position]) -> ReadRun:
    root = _root(owner)
    read = partial(context.reads.run_by_counter, root, run_number(number))
    return await context.recent.read(root, at_least, read)


def run_number(text: str) -> int:
    """Return the number of a run. Raises BadRequestError `invalidRunNumber`."""
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise BadRequestError(
            f"{text[:80]!r} is not a run number", code="invalidRunNumber", hint="runs are numbered from 1"
        )
    return int(text)


def _task(run: RunState, task_id: str) -> RunTask:
    for task in run.tasks.values():
        if task.id == task_id:
            return task
    raise NotExistError(f"the run has no task {task_id[:80]!r}", code="runTaskDoesNotExist", details={"run": run.id})


def _user_ids(context: GatewayContext) -> Mapping[str, str]:
    return context.config.state.names("user")


def _limit(text: str) -> int:
    """Return the number of runs of a page, 0 for all runs. Raises BadRequestError `invalidLimit`."""
    if not text:
        return DEFAULT_RUNS
    if not text.isascii() or not text.isdigit():
        raise BadRequestError(
            f"limit must be a number from 0 (got {text!r})", code="invalidLimit", hint="0 gives all runs"
        )
    return min(int(text), DEFAULT_RUNS)


def _query(root: str, wanted: _RunCursor, limit: int) -> RunQuery:
    return RunQuery(
        groups=(f"{root}/{wanted.sub_group.strip('/')}" if wanted.sub_group else root,),
        phases=tuple(wanted.phase_filter or ()),
        results=tuple(wanted.result_filter or ()),
        start_counter=wanted.start_run_counter,
        limit=limit,
        ascending=wanted.sort_direction == "asc",
    )


async def _runs(context: GatewayContext, root: str, query: RunQuery, at_least: Sequence[Position]) -> RunPage:
    return await context.recent.read(root, at_least, partial(context.reads.runs, query))


async def _page(
    context: GatewayContext, root: str, query: RunQuery, at_least: Sequence[Position]
) -> tuple[list[RunSummary], bool]:
    """Return a full page, or the last one, and whether more runs follow."""
    page = await _runs(context, root, query, at_least)
    runs = [*page.runs]
    while page.next_start is not None and len(runs) < query.limit:
        rest = replace(query, start=page.next_start, start_counter=0, limit=query.limit - len(runs))
        page = await context.reads.runs(rest, ())
        runs += page.runs
    return runs, bool(runs) and page.next_start is not None


async def _all_runs(
    context: GatewayContext, root: str, wanted: _RunCursor, at_least: Sequence[Position]
) -> LiveResponse:
    """Return all runs. There can be any number of them, so they are read and sent page by page."""
    query = _query(root, wanted, MAX_LIMIT)
    first = await _runs(context, root, query, at_least)

    async def write(send: SendBytes) -> None:
        page, begin = first, b"["
        while True:
            if page.runs:
                await send(begin + msgspec.json.encode([summary_view(run) for run in page.runs])[1:-1])
                begin = b","
            if page.next_start is None:
                break
            page = await context.reads.runs(replace(query, start=page.next_start, start_counter=0), ())
        await send(b"[]" if begin == b"[" else b"]")

    return LiveResponse(write, media_type=JSON_TYPE, headers={CURSOR_HEADER: ""}, stopping=context.stopping)


async def _act(
    context: GatewayContext, sender: Sender, run: RunState, decide: Callable[[RunState], Sequence[RunEvent]]
) -> Position | None:
    try:
        return await context.actions.on_run(run.id, decide, author=sender.author)
    except NotAllowed as refusal:
        raise BadRequestError(
            str(refusal), code=refusal.code, details={"run": run.id}, hint=refusal.allowed
        ) from refusal


async def _restarted(context: GatewayContext, sender: Sender, read: ReadRun, *, from_start: bool) -> Response:
    prepared = await context.restarts.prepare(CreateRunBody(run_id=read.record.run.id, from_start=from_start))
    created = await context.creation.create(prepared.new, author=sender.author)
    run = await _numbered(context, created)
    return json_response(run_view(run, created.config, _user_ids(context)), positions=[created.position])


async def _numbered(context: GatewayContext, created: CreatedRun) -> RunState:
    """Return a new run with its number, which clients need to find it; without, when no scheduler gives it in time."""
    at = created.position
    address = Address(at.partition, "run", created.run.id)
    try:
        async with (
            asyncio.timeout(NUMBER_SECONDS),
            context.log.read(at.partition, at.sequence - 1, filters=(context.log.subjects.of(address),)) as reader,
        ):
            while True:
                for message in await reader.next_batch():
                    if any(isinstance(event, RunNumbered) for event in decode(message).commit.events):
                        context.recent.note(created.run.group, message.position)
                        return (await find_run(context.log, address)).run
    except TimeoutError:
        return created.run  # the number follows later, as that of any run
