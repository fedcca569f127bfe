"""Responses sent piece by piece, and jobs that outlive the request that started them.

Only the normal end of a streamed response means that it is complete; everything else aborts the connection. Status and
headers go out before the first byte. The writer is cancelled when the client leaves, when the sender of the request may
not read on, and when the gateway stops or parks: then the last chunk is never sent, so that a client can tell a
truncated response from a complete one. The writer waits while the client does not read, so nothing piles up here.

Server-sent events are a complete response wherever they end: a client resumes after the last one, and a browser would
report a truncated response as an error of the network.

A job reports progress to any number of readers, as JSON lines:

    {"progress": {"step": "loading", "done": 41000, "total": 100000}}
    {"result": …}      or      {"error": [{"code", "details", "message", "hint", "kind"}]}

A reader gets a line when something changes, at most a few each second, and one every few seconds otherwise, so that
silence never looks like the end. The last line is the result or the error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol

import msgspec
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runstream.gateway.errors import error_entry
from runstream.lifecycle import StrictTaskGroup

SendBytes = Callable[[bytes], Awaitable[None]]
Writer = Callable[[SendBytes], Awaitable[None]]
log = structlog.get_logger()


class Access(Protocol):
    """The access of the reader of a response."""

    async def lost(self) -> None:
        """Return once the reader may not read the response any more."""


class LiveResponse(Response):
    """A response that `writer` sends with the function that it gets; complete once the writer returns."""

    whole_anywhere: ClassVar[bool] = False
    """True if a response that the gateway ends is sent as a complete one."""

    def __init__(
        self,
        writer: Writer,
        *,
        media_type: str,
        headers: Mapping[str, str],
        stopping: asyncio.Event,
        status: int = 200,
        access: Access | None = None,
    ) -> None:
        """With `access`, the response is cut off once that is lost."""
        super().__init__(status_code=status, media_type=media_type, headers={"Cache-Control": "no-cache", **headers})
        if "content-length" not in (name.lower() for name in headers):
            del self.headers["content-length"]
        self._writer = writer
        self._stopping = stopping
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send status and headers, then what the writer sends. Raises what the writer raises."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})

        async def send_bytes(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        async with StrictTaskGroup() as group:
            work = group.create_task(_run(self._writer, send_bytes))
            ends = [group.create_task(_gone(receive)), group.create_task(_wait(self._stopping))]
            if self._access is not None:
                ends.append(group.create_task(self._access.lost()))
            await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
            complete = work.done()
            for task in (work, *ends):
                task.cancel()
        if complete or self.whole_anywhere:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif self._stopping.is_set():
            # The server closes the connection of an incomplete response.
            log.info("the gateway stops: a stream was cut off", action="stream_cut_off", path=scope["path"])


EVENT_STREAM = "text/event-stream"


class EventResponse(LiveResponse):
    """A response of server-sent events."""

    whole_anywhere = True

    def __init__(self, writer: Writer, *, stopping: asyncio.Event, access: Access) -> None:
        super().__init__(writer, media_type=EVENT_STREAM, headers={}, stopping=stopping, access=access)


async def _run(writer: Writer, send: SendBytes) -> None:
    await writer(send)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


JSON_LINES = "application/x-ndjson"
PACE_SECONDS = 0.25
"""Minimum interval between two lines."""
QUIET_SECONDS = 5.0
"""Maximum interval between two lines."""

ReportProgress = Callable[[str, int, int], None]
"""Takes the name of the step, the amount done, and the total (0 when it is unknown)."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The progress of a job."""

    step: str
    """The name of the current step."""
    done: int
    total: int
    """0 when it is unknown."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The state of a job."""

    name: str
    begun: datetime
    progress: JobProgress | None
    """None once the job has ended."""
    result: object
    """None while the job runs, and when it failed."""
    error: list[dict[str, Any]] | None


class BackgroundJob:
    """A job, which starts when it is constructed."""

    def __init__(self, name: str, begun: datetime, run: Callable[[ReportProgress], Awaitable[object]]) -> None:
        self.name = name
        self.begun = begun
        self._progress: JobProgress | None = None
        self._changed = asyncio.Event()
        """Replaced when it is set, so that each change wakes every reader once."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(run(self._report))

    @property
    def ended(self) -> bool:
        """True if the job has succeeded or failed."""
        return self._task.done()

    @property
    def status(self) -> JobStatus:
        """The state of the job now."""
        if not self.ended:
            return JobStatus(self.name, self.begun, self._progress or JobProgress("beginning", 0, 0), None, None)
        error = self._failure()
        if error is not None:
            return JobStatus(self.name, self.begun, None, None, [error_entry(error, detailed=False)])
        return JobStatus(self.name, self.begun, None, self._task.result(), None)

    async def result(self) -> object:
        """Wait for the end of the job and return its result. Raises what the job raised."""
        return await asyncio.shield(self._task)

    async def until_started(self) -> None:
        """Wait for the first report of progress, before which a job may be refused. Raises what the job raised."""
        while self._progress is None and not self.ended:
            await self._until_changed(None)
        if self._progress is None:
            await self.result()

    async def write(self, send: SendBytes) -> None:
        """Send lines from now to the end of the job."""
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

    def _report(self, step: str, done: int, total: int) -> None:
        """Note progress; safe to call from another thread."""
        self._loop.call_soon_threadsafe(self._note, JobProgress(step, done, total))

    def _note(self, progress: JobProgress) -> None:
        self._progress = progress
        self._changed.set()
        self._changed = asyncio.Event()

    def _failure(self) -> BaseException | None:
        return asyncio.CancelledError("the job was stopped") if self._task.cancelled() else self._task.exception()


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"
