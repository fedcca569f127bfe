"""A streamed response. Its normal end means that it is complete; everything else aborts the connection.

Status and headers are sent at once, before there is a first byte. The writer is cancelled when the client
goes away, or when the gateway stops or parks. Then the last chunk is never sent, so that a client can tell a
truncated response from a complete one. The writer waits while the client does not read: nothing piles up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

SendBytes = Callable[[bytes], Awaitable[None]]
Writer = Callable[[SendBytes], Awaitable[None]]
log = structlog.get_logger()


class LiveAnswer(Response):
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
