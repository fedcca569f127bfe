"""Work that goes on to its end whoever waits for it: how far it is, and what became of it, for any number of readers.

    {"progress": {"step": "loading", "done": 41000, "total": 100000}}
    {"result": …}      or      {"error": [{"code", "details", "message", "hint", "kind"}]}

A line follows when something has changed, at most a few a second; and every few seconds when nothing has, so that
nobody takes silence for the end. The last line is the result or the error, in their usual shapes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runstream.gateway.errors import error_entry

SendBytes = Callable[[bytes], Awaitable[None]]
Writer = Callable[[SendBytes], Awaitable[None]]
log = structlog.get_logger()


class LiveResponse(Response):
    """Runs `writer` with a function that sends bytes; complete once it returns."""

    def __init__(self, writer: Writer, *, media_type: str, headers: Mapping[str, str], stopping: asyncio.Event) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-cache", **headers})
        del self.headers["content-length"]
        self._writer = writer
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send status and headers, then whatever the writer sends; raises what it raises."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})

        async def send_bytes(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        async with asyncio.TaskGroup() as group:
            work = group.create_task(_run(self._writer, send_bytes))
            ends = [group.create_task(_gone(receive)), group.create_task(_wait(self._stopping))]
            await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
            complete = work.done()
            for task in (work, *ends):
                task.cancel()
        if complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif self._stopping.is_set():
            # The server closes the connection of a response that was not completed.
            log.info("a stream is cut off: the gateway stops", action="stream_cut_off", path=scope["path"])


async def _run(writer: Writer, send: SendBytes) -> None:
    await writer(send)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


JSON_LINES = "application/x-ndjson"
PACE_SECONDS = 0.25
"""Between two lines at least."""
QUIET_SECONDS = 5.0
"""Between two lines at most."""

ReportProgress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much (0: nobody knows)."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a work is."""

    step: str
    """What it does now."""
    done: int
    total: int
    """0 when nobody knows."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What is known of a work."""

    name: str
    begun: datetime
    progress: JobProgress | None
    """None when it has ended."""
    result: object
    """What came of it; None while it goes on, and when it failed."""
    error: list[dict[str, Any]] | None


class Job:
    """One work, begun when it is made."""

    def __init__(self, name: str, begun: datetime, run: Callable[[ReportProgress], Awaitable[object]]) -> None:
        self.name = name
        self.begun = begun
        self._progress: JobProgress | None = None
        self._changed = asyncio.Event()
        """Replaced when it is set, so that each change wakes everybody once."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(run(self._say))

    @property
    def ended(self) -> bool:
        """Whether it has succeeded or failed."""
        return self._task.done()

    @property
    def status(self) -> JobStatus:
        """What is known now."""
        if not self.ended:
            return JobStatus(self.name, self.begun, self._progress or JobProgress("beginning", 0, 0), None, None)
        error = self._failure()
        if error is not None:
            return JobStatus(self.name, self.begun, None, None, [error_entry(error, detailed=False)])
        return JobStatus(self.name, self.begun, None, self._task.result(), None)

    async def result(self) -> object:
        """Wait for its end; what came of it. Raises what it raised."""
        return await asyncio.shield(self._task)

    async def until_begun(self) -> None:
        """Return once it has said how far it is; before that it may be refused. Raises what it raised."""
        while self._progress is None and not self.ended:
            await self._until_changed(None)
        if self._progress is None:
            await self.result()

    async def write(self, send: SendBytes) -> None:
        """Send the lines, from now to the end of it."""
        while not self.ended:
            await send(_line({"progress": self._progress or JobProgress("beginning", 0, 0)}))
            await self._until_changed(QUIET_SECONDS)
            await asyncio.wait({self._task}, timeout=PACE_SECONDS)
        status = self.status
        await send(_line({"result": status.result} if status.error is None else {"error": status.error}))

    async def _until_changed(self, seconds: float | None) -> None:
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({self._task, changed}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    def _say(self, step: str, done: int, total: int) -> None:
        """Also from another thread."""
        self._loop.call_soon_threadsafe(self._note, JobProgress(step, done, total))

    def _note(self, progress: JobProgress) -> None:
        self._progress = progress
        self._changed.set()
        self._changed = asyncio.Event()

    def _failure(self) -> BaseException | None:
        return asyncio.CancelledError("it was stopped") if self._task.cancelled() else self._task.exception()


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"
