"""Questions to whoever is in charge, by request and reply: nothing is stored, and nobody may be there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

logger = structlog.get_logger(__name__)

AT_ONCE = 16
"""Questions of one subject that are worked on side by side; others wait."""


class NoAnswer(Enum):
    """Why there is no answer."""

    NOBODY = "nobody is there to answer"
    SILENT = "there was no answer in time"


class Questions:
    """Asks and answers over one connection."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def ask(self, subject: str, question: bytes, seconds: float) -> bytes | NoAnswer:
        """The answer, waited for so long at most."""
        if not self._nc.is_connected:
            return NoAnswer.SILENT
        asking = asyncio.ensure_future(self._nc.request(subject, question, timeout=seconds))
        try:
            # Not awaited directly: it is a `wait_for`, which in Python 3.11 swallows a cancellation that comes
            # together with the answer.
            await asyncio.wait({asking})
            return asking.result().data
        except nats.errors.NoRespondersError:
            return NoAnswer.NOBODY
        except (nats.errors.Error, OSError):
            return NoAnswer.SILENT
        finally:
            asking.cancel()

    @asynccontextmanager
    async def answering(self, subject: str, answer: Callable[[bytes], Awaitable[bytes]]) -> AsyncIterator[None]:
        """Answer the questions of this subject as long as the block lasts; one that fails is not answered."""
        room = asyncio.Semaphore(AT_ONCE)
        under_way: set[asyncio.Task[None]] = set()

        async def reply(message: Msg) -> None:
            try:
                await message.respond(await answer(message.data))
            except Exception:  # whoever asked is told that there was no answer in time
                logger.exception("A question could not be answered", action="question_failed", subject=subject)
            finally:
                room.release()

        async def take(message: Msg) -> None:
            await room.acquire()
            task = asyncio.create_task(reply(message))
            under_way.add(task)
            task.add_done_callback(under_way.discard)

        subscription = await self._nc.subscribe(subject, cb=take)
        try:
            yield
        finally:
            if self._nc.is_connected:
                await subscription.unsubscribe()
            for task in under_way:
                task.cancel()
