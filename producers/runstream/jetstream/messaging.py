"""Messages that no stream stores: questions with one answer, notices to every listener, the progress of consumers.

Only the process that consumes a partition knows the error that holds it up. It answers for its progress as long as it
has the partition, so no answer means that no process has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import Enum

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

logger = structlog.get_logger(__name__)

AT_ONCE = 16
"""Maximum number of questions of one subject that are answered concurrently; others wait."""


class NoAnswer(Enum):
    """The reason why there is no answer."""

    NO_RESPONDERS = "no process answers"
    SILENT = "there was no answer in time"


class Questions:
    """Requests and replies over one connection."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def ask(self, subject: str, question: bytes, seconds: float) -> bytes | NoAnswer:
        """Return the answer, or why there is none within `seconds`."""
        if not self._nc.is_connected:
            return NoAnswer.SILENT
        asking = asyncio.ensure_future(self._nc.request(subject, question, timeout=seconds))
        try:
            # Not awaited directly: nats-py uses `wait_for`, which in Python 3.11 swallows a cancellation that comes
            # together with the answer.
            await asyncio.wait({asking})
            if asking.cancelled():  # by the client library, when it connects again
                return NoAnswer.SILENT
            return asking.result().data
        except nats.errors.NoRespondersError:
            return NoAnswer.NO_RESPONDERS
        except (nats.errors.Error, OSError):
            return NoAnswer.SILENT
        finally:
            asking.cancel()

    @asynccontextmanager
    async def answering(self, subject: str, answer: Callable[[bytes], Awaitable[bytes]]) -> AsyncIterator[None]:
        """Answer the questions of this subject during the block; one whose answer fails gets none."""
        room = asyncio.Semaphore(AT_ONCE)
        under_way: set[asyncio.Task[None]] = set()

        async def reply(message: Msg) -> None:
            try:
                await message.respond(await answer(message.data))
            except Exception:  # the question times out
                logger.exception("answering a question failed", action="question_failed", subject=subject)
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


class Notices:
    """Broadcasts over one connection."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def tell(self, subject: str, notice: bytes) -> None:
        """Send a notice to every listener; drop it while there is no connection."""
        if not self._nc.is_connected:
            return
        try:
            await self._nc.publish(subject, notice)
        except (nats.errors.Error, OSError) as error:
            logger.debug("a notice was not sent", action="notice_unsent", subject=subject, why=str(error))

    @asynccontextmanager
    async def receiving(self, subject: str, receive: Callable[[bytes], None]) -> AsyncIterator[None]:
        """Pass each notice to `receive` during the block, those of this process included."""

        async def take(message: Msg) -> None:
            receive(message.data)

        subscription = await self._nc.subscribe(subject, cb=take)
        try:
            yield
        finally:
            if self._nc.is_connected:
                await subscription.unsubscribe()


ASK_SECONDS = 0.5
MAX_REASON = 300
"""Maximum length of an error's text, in characters."""


def _now() -> datetime:
    return datetime.now(UTC)


class ConsumerProgress(msgspec.Struct):
    """The time of a consumer's last progress, and its failures since."""

    moved_at: datetime = msgspec.field(default_factory=_now)
    error: str = ""
    """Empty when nothing has failed since."""
    consumed: dict[int, int] = msgspec.field(default_factory=dict, name="reached")
    """The last consumed sequence of each partition; empty where rows in Postgres have it."""

    def moved(self, consumed: Mapping[int, int] | None = None) -> None:
        """Note that the consumer has advanced, and how far."""
        self.moved_at, self.error = _now(), ""
        self.consumed = dict(consumed or {})

    def failed(self, error: str) -> None:
        """Note what keeps the consumer from advancing."""
        self.error = error[:MAX_REASON]

    async def answer(self, _question: bytes) -> bytes:
        """Return the progress as JSON, for `Questions.answering`."""
        return msgspec.json.encode(self)


async def ask_progress(questions: Questions, subject: str, seconds: float = ASK_SECONDS) -> ConsumerProgress | NoAnswer:
    """Return the progress of the consumer that answers on this subject, or why there is no answer."""
    answer = await questions.ask(subject, b"", seconds)
    return answer if isinstance(answer, NoAnswer) else msgspec.json.decode(answer, type=ConsumerProgress)
