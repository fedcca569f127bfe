"""GET /logs, /logs/lines and /logs/search: the log of a step, stored or live (rules storage-6 to storage-8).

Status and headers of a followed log are sent at once, before its first byte.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Header, Query
from pydantic import AwareDatetime
from starlette.requests import Request
from starlette.responses import Response

from runstream.api import Failure, Failures, LogLine, LogLines, Task
from runstream.commits import Position
from runstream.domain.run import RunState, RunTask
from runstream.errors import BadRequestError, ConflictError, NotExistError
from runstream.events.run import RunTaskLogDeleted
from runstream.gateway.context import AtLeast, Flag, GatewayContext, documented, flag, json_response
from runstream.gateway.open_access import OpenAccess, access_of
from runstream.gateway.ranges import ConditionalHeaders, byte_range, has_tag
from runstream.gateway.responses import run_answer
from runstream.gateway.routers import api_router
from runstream.gateway.run_access import Wish, require_run
from runstream.gateway.sender import sender_of
from runstream.gateway.streaming import LiveResponse, SendBytes
from runstream.ids import attempt_id, executor_task_id, require_uuid
from runstream.limits import MAX_WORD_BYTES
from runstream.log.port import Log
from runstream.log.runs import FoundRun, find_run, locate_run, task_of
from runstream.log_lines import MAX_LINE_BYTES, MAX_LINES, LinePage, NumberedLine
from runstream.log_search import MAX_MATCHES, MAX_QUERY_BYTES, compile_query
from runstream.log_times import StampedLines, TimedBytes, milliseconds, moment
from runstream.subjects import Address, StepLogKey

log = structlog.get_logger()

MAX_OFFSET = 1 << 53
MAX_TAIL_LINES = 10_000
MAX_RESTARTS = 20
"""Earlier runs that are asked for the reason why the log of a kept task is missing."""
MAX_FAILURES = 100
"""Failed tasks in one response."""
FAILURE_LINES = 50
FAILURE_LINE_BYTES = 2 << 10
"""Of one line in a response about failures."""
OFFSET_HEADER = "Runstream-Log-Offset"
_OFFSET = {"description": "where in the log this response begins, in bytes", "schema": {"type": "integer"}}
_TAG = {"description": "of a stored log as a whole", "schema": {"type": "string"}}
_PART = {"description": "the bytes of the response, and the size of the log", "schema": {"type": "string"}}
_TEXT = {
    "responses": {
        "200": {
            "description": "the log",
            "headers": {OFFSET_HEADER: _OFFSET, "ETag": _TAG},
            "content": {"text/plain": {}},
        },
        "206": {
            "description": "the bytes that Range names",
            "headers": {OFFSET_HEADER: _OFFSET, "ETag": _TAG, "Content-Range": _PART},
            "content": {"text/plain": {}},
        },
        "304": {"description": "the log is the one that If-None-Match names"},
        "416": {"description": "the log does not have the bytes that Range names", "headers": {"Content-Range": _PART}},
    }
}


_RANGE = "bytes of a stored log, such as bytes=0-999, bytes=1000- or bytes=-1000; several ranges give the whole log"
_RunId = Annotated[str, Query(max_length=MAX_WORD_BYTES, description="the run's id")]
_TaskId = Annotated[str, Query(max_length=MAX_WORD_BYTES, description="the id of one of its tasks")]
_Step = Annotated[str | None, Query(max_length=MAX_WORD_BYTES, description="the number of a step, from 0")]
_Service = Annotated[int | None, Query(ge=1, le=1000, description="the number of a service of its pod, from 1")]
_Attempt = Annotated[int | None, Query(ge=1, lt=1 << 63, description="of the task, from 1; the last one without it")]


@dataclass(frozen=True, slots=True)
class WantedLog:
    """The log that a request names."""

    run_id: str
    task_id: str
    step: int | None
    """None for the setup, -N for service N."""
    attempt: int | None


async def _wanted_log(
    runid: _RunId = "",
    taskid: _TaskId = "",
    setup: Flag = None,
    step: _Step = None,
    service: _Service = None,
    attempt: _Attempt = None,
) -> WantedLog:
    number = step_number(flag(setup), step, service)
    require_uuid(taskid, "task id")
    return WantedLog(runid, taskid, number, attempt)


_Wanted = Annotated[WantedLog, Depends(_wanted_log)]


@contextlib.asynccontextmanager
async def _located(context: GatewayContext, wanted: WantedLog) -> AsyncIterator[StepLogKey]:
    """Yield the key of a log; an error about a missing one says why."""
    try:
        run = await find_run(context.log, await locate_run(context.log, wanted.run_id))
        yield _key(run, wanted.task_id, wanted.attempt, wanted.step)
    except NotExistError as error:
        raise await _no_log(context.log, wanted, error) from error


def log_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of step logs."""
    router = api_router("logs")

    @router.get("/logs", openapi_extra=_TEXT)
    async def logs(
        request: Request,
        wanted: _Wanted,
        follow: Flag = None,
        offset: Annotated[
            int, Query(ge=0, le=MAX_OFFSET, description="begin at this byte, such as where a response broke off")
        ] = 0,
        tail: Annotated[
            int | None,
            Query(ge=1, le=MAX_TAIL_LINES, description="begin with this many lines at the end of what is written"),
        ] = None,
        since: Annotated[
            AwareDatetime | None, Query(description="begin with the first line that was written at this time or later")
        ] = None,
        timestamps: Flag = None,
        wanted_range: Annotated[str, Header(alias="Range", max_length=MAX_WORD_BYTES, description=_RANGE)] = "",
        if_range: Annotated[str, Header(max_length=MAX_WORD_BYTES)] = "",
        if_none_match: Annotated[str, Header(max_length=MAX_WORD_BYTES)] = "",
    ) -> Response:
        """Send the log of a step or of the setup, as it is now; with `follow` until it ends.

        A response that is cut short (the gateway stops, NATS is away) is aborted: continue it with `offset`, which does
        not count the bytes of timestamps.

        A stored log does not change. Requested as a whole, it has an `ETag`, and the request may name a `Range`.

        With `timestamps`, each line begins with its time in UTC and a space, or with `- ` if the time is unknown; so
        does a response that begins inside a line.
        """
        if (tail is not None) + (since is not None) + (offset > 0) > 1:
            raise BadRequestError(
                "give one of offset, tail and since",
                code="invalidTail",
                hint="continue behind a tail or a time with offset alone",
            )
        required = await require_run(context, sender_of(request), wanted.run_id, Wish.SEE)
        async with _located(context, wanted) as key:
            if tail is None and since is None and not offset and not flag(timestamps):
                size = await context.step_logs.stored_size(key)
                if size is not None:
                    asked = ConditionalHeaders(wanted_range, if_range, if_none_match)
                    return await _stored(context, key, size, asked)
            if tail is not None:
                offset = await context.step_logs.tail(key, tail)
            elif since is not None:
                offset = await context.step_logs.since(key, milliseconds(since))
            chunks: AsyncIterator[bytes]
            if flag(timestamps):
                chunks = _stamped(await context.step_logs.open_timed(key, follow=flag(follow), offset=offset))
            else:
                chunks = await context.step_logs.open(key, follow=flag(follow), offset=offset)
        access = access_of(context, request, required) if flag(follow) else None
        return _text(context, chunks, {OFFSET_HEADER: str(offset)}, access=access)

    @router.get("/logs/lines", openapi_extra=documented(None, LogLines))
    async def lines(
        request: Request,
        wanted: _Wanted,
        first: Annotated[
            int,
            Query(
                alias="from",
                ge=-MAX_OFFSET,
                le=MAX_OFFSET,
                description="number of the first line, from 0; a negative one counts from the end",
            ),
        ] = 0,
        count: Annotated[int, Query(ge=1, le=MAX_LINES, description="of lines, at most")] = 1000,
    ) -> Response:
        """Send lines of a log as it is now, numbered and with their times; at most 1 MiB of them, but at least one."""
        await require_run(context, sender_of(request), wanted.run_id, Wish.SEE)
        async with _located(context, wanted) as key:
            page = await context.step_logs.lines(key, first, count)
        return json_response(_lines(page))

    @router.get("/logs/search", openapi_extra=documented(None, LogLines))
    async def search(
        request: Request,
        q: Annotated[str, Query(min_length=1, max_length=MAX_QUERY_BYTES, description="what the lines contain")],
        wanted: _Wanted,
        regex: Flag = None,
        ignore_case: Flag = None,
        first: Annotated[
            int, Query(alias="from", ge=0, le=MAX_OFFSET, description="number of the first line to search, from 0")
        ] = 0,
        count: Annotated[int, Query(ge=1, le=MAX_MATCHES, description="of matching lines, at most")] = 100,
    ) -> Response:
        """Send the lines of a log, as it is now, that contain a text, or match an RE2 expression with `regex`.

        The response ends after `count` lines, 1 MiB of them, or 64 MiB of the log; continue with `from` = `next`. Of
        lines longer than 64 KiB, the beginning is searched.
        """
        try:
            query = compile_query(q, regex=flag(regex), ignore_case=flag(ignore_case))
        except ValueError as error:
            raise BadRequestError(
                f"q: {error}", code="invalidExpression", hint="RE2 syntax; without regex, q is plain text"
            ) from error
        await require_run(context, sender_of(request), wanted.run_id, Wish.SEE)
        async with _located(context, wanted) as key:
            page = await context.step_logs.search(key, first, count, query)
        return json_response(LogLines(_log_lines(page.lines), page.next))

    @router.get("/runs/{run_id}/failures", openapi_extra=documented(None, Failures))
    async def failures(request: Request, run_id: str, at_least: AtLeast) -> Response:
        """Send the failed tasks of a run: the failed step, its exit status, and the end of its log."""
        require_uuid(run_id, "run id")
        await require_run(context, sender_of(request), run_id, Wish.SEE)
        read = await context.reads.run(run_id, at_least)
        tasks = run_answer(read.record.run, read.config, read.record.executor_tasks).run.tasks.values()
        failed = sorted((task for task in tasks if task.status == "failed"), key=lambda task: task.name)
        found = await find_run(context.log, await locate_run(context.log, run_id)) if failed else None
        shown = [await _failure(context, found, task) for task in failed[:MAX_FAILURES] if found is not None]
        return json_response(Failures(tuple(shown), len(failed) > MAX_FAILURES))

    return router


async def send_log(context: GatewayContext, wanted: WantedLog, *, following: OpenAccess | None) -> Response:
    """Return a log from its beginning; with `following` until it ends. Raises NotExistError without one."""
    async with _located(context, wanted) as key:
        chunks = await context.step_logs.open(key, follow=following is not None)
    return _text(context, chunks, {}, access=following)


async def delete_log(context: GatewayContext, wanted: WantedLog, author: str) -> Position | None:
    """Delete a stored log; return the position of the commit that says so.

    The commit comes first: a log of which only that is left can be deleted again, and no log goes without one. Raises
    NotExistError for a missing log, BadRequestError for one that is not stored yet.
    """
    position: Position | None = None
    async with _located(context, wanted) as key:
        if await context.step_logs.stored_size(key) is not None:
            position = await context.actions.on_run(wanted.run_id, lambda run: (_deleted(run, wanted),), author=author)
        await context.step_logs.delete(key)
    log.info(
        "a log was deleted",
        action="log_deleted",
        run=wanted.run_id,
        task=wanted.task_id,
        step="setup" if wanted.step is None else wanted.step,
        author=author,
    )
    return position


def _deleted(run: RunState, wanted: WantedLog) -> RunTaskLogDeleted:
    task = task_of(run, wanted.task_id)
    return RunTaskLogDeleted(task.name, task.attempt if wanted.attempt is None else wanted.attempt, wanted.step)


async def _stored(context: GatewayContext, key: StepLogKey, size: int, asked: ConditionalHeaders) -> Response:
    """Return a stored log, a part of it, 304 if the client has it, or 416."""
    tag = f'"{hashlib.sha256(f"{key.stored_id} {key.step} {size}".encode()).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes", OFFSET_HEADER: "0"}
    if has_tag(asked.if_none_match, tag):
        return Response(status_code=304, headers=headers)
    part = byte_range(asked.range, size) if asked.if_range in ("", tag) else None
    if part is None:
        return _text(context, await context.step_logs.open(key, follow=False), headers)
    if not part:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"})
    headers |= {
        OFFSET_HEADER: str(part.start),
        "Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}",
        "Content-Length": str(len(part)),
    }
    chunks = await context.step_logs.open(key, follow=False, offset=part.start)
    return _text(context, _first_bytes(chunks, len(part)), headers, status=206)


def _text(
    context: GatewayContext,
    chunks: AsyncIterator[bytes],
    headers: Mapping[str, str],
    *,
    status: int = 200,
    access: OpenAccess | None = None,
) -> Response:
    return LiveResponse(
        partial(_send_all, chunks),
        media_type="text/plain;charset=UTF-8",
        headers={"X-Content-Type-Options": "nosniff", **headers},
        stopping=context.stopping,
        status=status,
        access=access,
    )


async def _first_bytes(chunks: AsyncIterator[bytes], size: int) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in chunks:
            yield chunk[:size]
            size -= len(chunk)
            if size <= 0:
                break
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def _failure(context: GatewayContext, found: FoundRun, task: Task) -> Failure:
    steps = [(None, task.setup_step), *enumerate(task.steps)]
    failed = [(number, step) for number, step in steps if step.phase == "failed"]
    last = [(number, step) for number, step in steps if step.start_time is not None][-1:]
    about = (failed or last)[:1]
    if not about:
        return Failure(task.name, task.id, task.attempt, None, "", None, task.fail_error, None)
    number, step = about[0]
    lines: tuple[LogLine, ...] | None = None
    with contextlib.suppress(NotExistError, ConflictError):  # it is lost, or its beginning cannot be read yet
        key = _key(found, task.id, task.attempt, number)
        page = await context.step_logs.lines(key, -FAILURE_LINES, FAILURE_LINES)
        lines = _lines(page, FAILURE_LINE_BYTES).lines
    return Failure(task.name, task.id, task.attempt, number, step.name, step.exit_status, task.fail_error, lines)


def _lines(page: LinePage, most: int = MAX_LINE_BYTES) -> LogLines:
    """Return the lines, each with at most this many bytes."""
    return LogLines(_log_lines(page.lines, most), page.first + len(page.lines) if page.more else None)


def _log_lines(lines: Sequence[NumberedLine], most: int = MAX_LINE_BYTES) -> tuple[LogLine, ...]:
    return tuple(
        LogLine(
            line.number,
            line.offset,
            None if line.time is None else moment(line.time),
            line.data[:most].decode(errors="replace"),
            line.cut or len(line.data) > most,
        )
        for line in lines
    )


def step_number(setup: bool, step: str | None, service: int | None) -> int | None:
    """Return the number of a step; None for the setup, -N for service N. Raises BadRequestError."""
    if setup + (step is not None) + (service is not None) != 1:
        raise BadRequestError(
            "give either setup, step or service",
            code="invalidRunTaskStepNumber",
            hint="&setup, or &step=0 for the first step",
        )
    if service is not None:
        return -service
    if step is not None and not (step.isascii() and step.isdigit() and len(step) < 10):
        raise BadRequestError(
            f"step {step[:80]!r} is not the number of a step",
            code="invalidRunTaskStepNumber",
            hint="steps are counted from 0",
        )
    return None if step is None else int(step)


def _key(found: FoundRun, task_id: str, attempt: int | None, step: int | None) -> StepLogKey:
    task = next((task for task in found.run.tasks.values() if task.id == task_id), None)
    if task is None:
        raise NotExistError(f"run {found.run.id} has no task {task_id}", code="runTaskDoesNotExist")
    steps = len(found.config.tasks[task.name].steps)
    if step is not None and step >= steps:
        raise NotExistError(
            f"task {task.name!r} has no step {step}: it has {steps} step{'' if steps == 1 else 's'}, counted from 0",
            code="runTaskStepDoesNotExist",
        )
    services = max(len(found.config.tasks[task.name].runtime.containers) - 1, 0)
    if step is not None and -step > services:
        raise NotExistError(
            f"task {task.name!r} has no service {-step}: it has {services}, counted from 1",
            code="runTaskServiceDoesNotExist",
        )
    number = task.attempt if attempt is None else attempt
    if number > task.attempt:
        raise NotExistError(
            f"task {task.name!r} has no attempt {number}: its last is {task.attempt}", code="runTaskAttemptDoesNotExist"
        )
    executed = _kept(task, number) if task.kept else executor_task_id(found.run.id, task.id, number)
    return StepLogKey(found.address.partition, found.run.id, task.name, attempt_id(task.id, number), executed, step)


def _kept(task: RunTask, attempt: int) -> str:
    """Return the executor task of a kept task's last attempt; earlier attempts are stored, and theirs is unknown."""
    return task.executor_task_id if attempt == task.attempt else ""


async def _removed(log: Log, wanted: WantedLog) -> NotExistError | None:
    """Return the error for a log that a user deleted, or that retention removed from this run or the one it repeats."""
    found = await find_run(log, await locate_run(log, wanted.run_id))
    task = task_of(found.run, wanted.task_id)
    event = _deleted(found.run, wanted)
    for stored in await log.history(found.address):
        if event in stored.commit.events:
            return NotExistError(
                f"log doesn't exist: {stored.commit.actor} deleted it at {stored.commit.time:%Y-%m-%d %H:%M:%S} UTC",
                code="logDeleted",
                details={"run": found.run.id, "at": stored.commit.time.isoformat(), "by": stored.commit.actor},
            )
    for _ in range(MAX_RESTARTS):
        run = found.run
        at, rule = (run.deleted_at, "the run") if run.deleted_at is not None else (run.logs_removed_at, "its logs")
        if at is not None:
            return NotExistError(
                f"log doesn't exist: retention removed {rule} at {at:%Y-%m-%d %H:%M:%S} UTC",
                code="logRemoved",
                details={"run": run.id, "at": at.isoformat()},
                hint="retention.logs in the settings says how long logs are kept",
            )
        if not task.kept or run.restart is None:
            break
        earlier = Address(found.address.partition, "run", run.restart.run_id)
        found = await find_run(log, earlier, also_deleted=True)
        task = found.run.tasks[task.name]
    return None


async def _no_log(log: Log, wanted: WantedLog, error: NotExistError) -> NotExistError:
    """Return the error for a missing log, with the reason in its message."""
    if error.code == "logDoesNotExist" and (removed := await _removed(log, wanted)) is not None:
        return removed
    why = "" if error.message == "log doesn't exist" else f": {error.message}"
    return NotExistError(
        f"log doesn't exist{why}",
        code=error.code or "logDoesNotExist",
        details=error.details,
        hint=error.hint or "`runstream run get` shows the tasks and steps of a run, and how far they are",
    )


async def _stamped(parts: AsyncIterator[TimedBytes]) -> AsyncGenerator[bytes, None]:
    lines = StampedLines()
    try:
        async for part in parts:
            yield lines.feed(part)
    finally:
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()


async def _send_all(chunks: AsyncIterator[bytes], send: SendBytes) -> None:
    try:
        async for chunk in chunks:
            await send(chunk)
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
