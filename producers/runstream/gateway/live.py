"""An answer that goes on for as long as there is something to say, and ends with whoever ends first.

Status and headers are sent at once, before there is a first byte. The writer is cancelled when the client
goes away or the gateway stops; it waits while the client does not read, so nothing piles up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

SendBytes = Callable[[bytes], Awaitable[None]]
Writer = Callable[[SendBytes], Awaitable[None]]


class LiveAnswer(Response):
    """Runs `writer` with a function that sends bytes, until it returns, the client leaves, or we stop."""

    def __init__(self, writer: Writer, *, media_type: str, headers: Mapping[str, str], stopping: asyncio.Event) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-cache", **headers})
        del self.headers["content-length"]
        self._writer = writer
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send status and headers, then whatever the writer sends."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})

        async def send_bytes(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        async with asyncio.TaskGroup() as group:
            work = group.create_task(_run(self._writer, send_bytes))
            ends = [group.create_task(_gone(receive)), group.create_task(_wait(self._stopping))]
            await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
            for task in (work, *ends):
                task.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _run(writer: Writer, send: SendBytes) -> None:
    await writer(send)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
