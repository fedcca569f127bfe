"""What the API answers in maintenance: health, maintenance, export and import; everything else is 503.

Only the question why a run waits has an answer here, since maintenance is just that.

Requests that are inside when the gate closes are let end; streams end as if their client had gone, and a request
whose body has not come yet is refused as if it had come later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstream.errors import InternalError
from runstream.gateway.answers import error_answer
from runstream.lifecycle import Component

ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})
ALWAYS_BELOW = ("/api/v1alpha/maintenance", "/api/v1alpha/export", "/api/v1alpha/import", "/api/v1alpha/epochs")
_DISCONNECT: Message = {"type": "http.disconnect"}


class Gate:
    """Lets requests through while it is open; it is closed until somebody opens it."""

    def __init__(
        self, why: Callable[[], str], instead: Callable[[str, str, str], Response | None] = lambda *_: None
    ) -> None:
        """`why` says the reason to those who are not let through.

        `instead(method, path, reason)` may answer one of them in place of those behind the gate.
        """
        self.is_open = False
        self._why = why
        self._instead = instead
        self.inside = 0
        """How many requests are let through and have not ended."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._receiving: set[asyncio.Timeout] = set()

    def open(self) -> None:
        """Let everybody through."""
        self.is_open = True

    def close(self) -> None:
        """Let nobody through any more, and end what waits for its client."""
        self.is_open = False
        now = asyncio.get_running_loop().time()
        for waiting in self._receiving:
            waiting.reschedule(now)

    async def empty(self) -> None:
        """Wait until nobody is inside."""
        await self._empty.wait()

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application behind this gate."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or _always(scope["path"]):
                await app(scope, receive, send)
            elif not self.is_open:
                await self._answer(scope["method"], scope["path"])(scope, receive, send)
            else:
                await self._through(app, scope, receive, send)

        return guarded

    async def _through(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside += 1
        self._empty.clear()
        try:
            await app(scope, self._until_closed(receive), send)
        finally:
            self.inside -= 1
            if not self.inside:
                self._empty.set()

    def _until_closed(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """What the client sends; once the gate is closed, that it has gone."""
        whole = False

        async def received() -> Message:
            nonlocal whole
            try:
                async with asyncio.timeout(None if self.is_open else 0) as waiting:
                    self._receiving.add(waiting)
                    try:
                        message = await receive()
                    finally:
                        self._receiving.discard(waiting)
            except TimeoutError as error:
                if whole:
                    return _DISCONNECT
                raise self._refusal() from error
            whole = whole or not message.get("more_body", False)
            return message

        return received

    def _answer(self, method: str, path: str) -> Response:
        if (answer := self._instead(method, path, self._why())) is None:
            answer = error_answer(self._refusal())
        return answer

    def _refusal(self) -> InternalError:
        return InternalError(
            f"the service is in maintenance{self._why()}",
            code="maintenance",
            hint="try again later; `runstream maintenance status` shows how far it is",
        )


class Admission(Component):
    """Keeps the gate open while it runs: the part of the gateway that is parked in maintenance."""

    name = "gateway"

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    async def run(self) -> None:
        """Let requests through until `stopping` is set."""
        self._gate.open()
        self.started.set()
        await self.stopping.wait()
        self._gate.close()

    async def drain(self, seconds: float | None) -> None:
        """Close the gate, and wait for the requests inside; each of them is bounded."""
        self._gate.close()
        try:
            await self._gate.empty()
        except asyncio.CancelledError:
            self._gate.open()
            raise

    @property
    def under_way(self) -> int:
        """How many requests are inside."""
        return self._gate.inside


def _always(path: str) -> bool:
    return path in ALWAYS or any(path == one or path.startswith(f"{one}/") for one in ALWAYS_BELOW)
