"""The access of open streams: a stream ends within seconds once its sender would be refused.

A followed log or an event stream is open for hours. Meanwhile its token may be revoked or expire, its session end, its
user lose a membership, or a project become private. So the request is authenticated and authorized again whenever
users, projects or memberships change, and every few seconds for what changes by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from starlette.requests import Request

from runstream.config.store import ConfigStore
from runstream.errors import ForbiddenError, NotExistError, RunstreamError, UnauthorizedError
from runstream.gateway.context import GatewayContext
from runstream.gateway.sender import AUTHENTICATE, Sender, sender_of

TICK_SECONDS = 5.0
"""Maximum interval between two checks: tokens expire, and sessions end, without a change of the config service."""
PACE_SECONDS = 1.0
"""Minimum interval between two checks, however often something changes."""
log = structlog.get_logger()
Requirement = Callable[[Sender], None]
"""Raise the refusal for a sender who may not read what a stream sends."""


def _nothing(_: Sender) -> None:
    """Require the same sender alone."""


@dataclass(frozen=True, slots=True)
class OpenAccess:
    """The access of one stream."""

    store: ConfigStore | None
    sender: Sender
    authenticate: Callable[[], Awaitable[Sender]]
    """Return the sender of the request, as of now. Raises UnauthorizedError, InternalError."""
    require: Requirement

    async def lost(self) -> None:
        """Return once the sender would be refused, or is allowed other things than at the beginning."""
        while True:
            seen = self._position()
            if not await self._allowed():
                log.info("a stream ends: its sender may not read it any more", action="stream_access_lost")
                return
            await asyncio.sleep(PACE_SECONDS)
            if self._position() == seen:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed(), TICK_SECONDS)

    async def _allowed(self) -> bool:
        try:
            sender = await self.authenticate()
            self.require(sender)
        except (UnauthorizedError, ForbiddenError, NotExistError):
            return False
        except RunstreamError:
            return True  # users are not loaded, or NATS is away: asked again
        return sender.actor == self.sender.actor

    def _position(self) -> object:
        return self.store.position if self.store is not None else None

    async def _changed(self) -> None:
        if self.store is None:
            await asyncio.Event().wait()
        else:
            await self.store.changed()


def access_of(context: GatewayContext, request: Request, require: Requirement = _nothing) -> OpenAccess:
    """Return the access of a request's stream, as long as `require` accepts the sender."""
    sender = sender_of(request)

    async def same() -> Sender:
        return sender

    return OpenAccess(context.store, sender, request.scope.get(AUTHENTICATE, same), require)
