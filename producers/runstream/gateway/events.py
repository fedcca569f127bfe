"""The two streams of server-sent events: every commit of the log, and the phases of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import orjson
import structlog
from cachetools import LRUCache
from msgspec.structs import asdict

from runstream.api import Step, Task
from runstream.commits import DecodedCommit, LogPosition, StoredCommit
from runstream.database.runs import ReadRun
from runstream.errors import NotExistError
from runstream.events.run import RunCancelled, RunCreated, RunFinished, RunResultSet, RunStarted
from runstream.gateway.errors import error_entry
from runstream.gateway.reads import PastRuns
from runstream.gateway.responses import run_answer
from runstream.gateway.streaming import SendBytes
from runstream.log.port import Log
from runstream.log.tail import TailedMessage, TailScope, tail
from runstream.run_states import RunPhase, RunResult

log = structlog.get_logger()

HEARTBEAT_SECONDS = 15.0
_KNOWN_RUNS = 10_000

T = TypeVar("T")
Formatter = Callable[[TailedMessage], Awaitable[bytes]]


async def write_events(
    source: Log, scope: TailScope, position: LogPosition, format_message: Formatter, send: SendBytes
) -> None:
    """Send each message as `format_message` renders it, until cancelled; a comment while the log is quiet.

    A failure ends the stream with an event `error`.
    """
    try:
        async with tail(source, scope, position) as take:
            await send(f": from {position}\n\n".encode())
            while True:
                await send(b"".join([await format_message(seen) for seen in await next_or_comment(take, send)]))
    except Exception as error:
        log.exception("an event stream failed", action="event_stream_failed")
        await send(sent_event("error", orjson.dumps([error_entry(error, detailed=False)])))


async def next_or_comment(take: Callable[[], Awaitable[T]], send: SendBytes) -> T:
    """Return what `take` returns; send a comment now and then until it does."""
    waiting = asyncio.ensure_future(take())
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=HEARTBEAT_SECONDS)
            if done:
                return waiting.result()
            await send(b": nothing new\n\n")
    finally:
        waiting.cancel()


async def commit_event(seen: TailedMessage) -> bytes:
    """Render one message of the log; its id is the position behind it, from which a client resumes."""
    at = seen.raw.position
    body: dict[str, object] = {"position": str(at)}
    if seen.commit is None:
        body["subject"] = seen.raw.subject
        body["error"] = error_entry(seen.error, detailed=False) if seen.error else None
        return _sse(seen.position, "unreadable", body)
    commit = seen.commit.commit
    body |= {
        "aggregate": commit.address.aggregate,
        "version": commit.version,
        "time": commit.time,
        "actor": commit.actor,
        "cause": commit.cause,
        "commit": commit.id,
        "events": [{"type": type(event).__name__, "data": event} for event in commit.events],
    }
    return _sse(seen.position, "commit", body)


def _sse(position: LogPosition, kind: str, body: object) -> bytes:
    return sent_event(kind, orjson.dumps(body, default=asdict), str(position))


def sent_event(kind: str, data: bytes, place: str = "") -> bytes:
    """Return a server-sent event; `place` is its id, from which a client resumes."""
    return (f"id: {place}\n" if place else "").encode() + b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


@dataclass(slots=True)
class RunPhases:
    """An event for each change of the phase or the result of a run (rule run-10)."""

    log: Log
    past: PastRuns
    sees: Callable[[str], bool]
    """Whether the reader of the stream may see the runs of a group."""
    _results: LRUCache[str, RunResult] = field(default_factory=lambda: LRUCache(_KNOWN_RUNS))
    """Results of the most recent runs; others are read from their history."""

    async def format_message(self, seen: TailedMessage) -> bytes:
        """Render the events of one message, possibly none."""
        if seen.commit is None or seen.commit.commit.address.kind != "run":
            return b""
        changes = await self._changes(seen.commit, seen.position)
        return b"".join(_sse(seen.position, "run_phase_changed", change) for change in changes)

    async def _changes(self, stored: StoredCommit, position: LogPosition) -> list[dict[str, object]]:
        commit = stored.commit
        changes: list[dict[str, object]] = []
        for number, event in enumerate(commit.events):
            phase = _phase_after(event)
            if phase is None:
                continue
            if isinstance(event, RunResultSet):
                self._results[commit.address.id] = event.result
            elif isinstance(event, RunCreated):
                self._results[commit.address.id] = RunResult.UNKNOWN
            result = await self._result(commit)
            changes.append(
                {
                    "id": f"{commit.id}.{number}",
                    "Sequence": str(position),
                    "RunEventType": "run_phase_changed",
                    "RunID": commit.address.id,
                    "Phase": phase.value,
                    "Result": result.value,
                    "creationTime": commit.time,
                    "updateTime": commit.time,
                    "DataVersion": DATA_VERSION,
                }
            )
        if changes:
            run = await self._run(stored)
            if run is not None and not self.sees(run.record.run.group):
                return []
            for one in changes:
                one["Data"] = run and {**run_data(run), "phase": one["Phase"], "result": one["Result"]}
        return changes

    async def _run(self, stored: StoredCommit) -> ReadRun | None:
        """Return the run as the commit left it; None when the start of its history cannot be read."""
        try:
            return await self.past.run(stored.commit.address.id, stored.position)
        except NotExistError:
            return None

    async def _result(self, commit: DecodedCommit) -> RunResult:
        run = commit.address.id
        if run not in self._results:
            result = RunResult.UNKNOWN
            for stored in await self.log.history(commit.address):
                for event in stored.commit.events if stored.commit.version <= commit.version else ():
                    result = event.result if isinstance(event, RunResultSet) else result
            self._results[run] = result
        return self._results[run]


def _phase_after(event: object) -> RunPhase | None:
    match event:
        case RunCreated(setup_errors=errors):
            return RunPhase.SETUP_ERROR if errors else RunPhase.QUEUED
        case RunStarted() | RunResultSet():
            return RunPhase.RUNNING
        case RunCancelled():
            return RunPhase.CANCELLED
        case RunFinished():
            return RunPhase.FINISHED
        case _:
            return None


DATA_VERSION: Final = 1
_RUN = ("id", "name", "counter", "phase", "result", "setup_errors")
_TIMES = ("enqueue_time", "start_time", "end_time")
_TASK = ("id", "name", "level", "skip", "status", "timedout", "waiting_approval", "approved", "start_time", "end_time")
_STEP = ("phase", "exit_status", "start_time", "end_time")


def run_data(read: ReadRun) -> dict[str, object]:
    """Return a run in version 1 of the data that events of its phase carry (rule run-10)."""
    run = run_answer(read.record.run, read.config, read.record.executor_tasks).run
    return {
        **{name: getattr(run, name) for name in (*_RUN, *_TIMES)},
        "tasks": {key: _task(task) for key, task in run.tasks.items()},
        "annotations": run.annotations,
    }


def _task(task: Task) -> dict[str, object]:
    return {
        **{name: getattr(task, name) for name in _TASK},
        "depends": {key: asdict(depend) for key, depend in task.depends.items()},
        "setup_step": _step(task.setup_step),
        "steps": [_step(step) for step in task.steps],
    }


def _step(step: Step) -> dict[str, object]:
    return {name: getattr(step, name) for name in _STEP}
