"""What processes tell each other in passing: nothing is stored, and who does not listen does not hear it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

logger = structlog.get_logger(__name__)


class Notices:
    """Tells and hears over one connection."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def tell(self, subject: str, notice: bytes) -> None:
        """Tell everybody who listens; nobody, while there is no connection."""
        if not self._nc.is_connected:
            return
        try:
            await self._nc.publish(subject, notice)
        except (nats.errors.Error, OSError) as error:
            logger.debug("A notice was not sent", action="notice_unsent", subject=subject, why=str(error))

    @asynccontextmanager
    async def hearing(self, subject: str, hear: Callable[[bytes], None]) -> AsyncIterator[None]:
        """Give each notice to `hear` as long as the block lasts; one's own are among them."""

        async def take(message: Msg) -> None:
            hear(message.data)

        subscription = await self._nc.subscribe(subject, cb=take)
        try:
            yield
        finally:
            if self._nc.is_connected:
                await subscription.unsubscribe()
