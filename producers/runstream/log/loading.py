"""Fill a stream with an existing log: in order, in atomic batches, each behind the one before.

No process reads a stream while it is filled. An interrupted one holds a prefix of the log; it is deleted and filled
again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import nats.errors
from msgspec import Struct

from runstream.errors import InternalError
from runstream.jetstream.publisher import Ack, Publisher, PublishOutcome, Unanswered

BATCH_COMMITS = 1000
BATCH_BYTES = 4 << 20
ANSWER_SECONDS = 30.0


class Load(Struct, frozen=True, gc=False):
    """A message to load."""

    subject: str
    body: bytes
    headers: dict[str, str]
    """Its headers; of the `Nats-*` ones only the id, which must be unique within two minutes."""


class StreamLoader:
    """The loader of one stream; loaders may share a publisher."""

    def __init__(self, publisher: Publisher, stream: str, end: int = 0) -> None:
        """`end` is the last sequence in the stream."""
        self._publisher = publisher
        self._stream = stream
        self.end = end
        """The last sequence that the stream has stored."""

    async def load(self, messages: Sequence[Load]) -> None:
        """Append messages to the stream. Raises InternalError unless the stream takes all of them, in order."""
        begin, size = 0, 0
        for at, message in enumerate(messages):
            size += len(message.body)
            if at > begin and (size > BATCH_BYTES or at - begin == BATCH_COMMITS):
                await self._batch(messages[begin:at])
                begin, size = at, len(message.body)
        if begin < len(messages):
            await self._batch(messages[begin:])

    async def _batch(self, messages: Sequence[Load]) -> None:
        outcome = await self.send(messages)
        last = self.end + len(messages)
        if not isinstance(outcome, Ack) or outcome.sequence != last:
            why = f"it ends at {outcome.sequence}" if isinstance(outcome, Ack) else outcome.why
            raise InternalError(
                f"stream {self._stream} does not take commits {self.end + 1} to {last}: {why}",
                code="notLoaded",
                details={"stream": self._stream, "after": self.end},
                hint="nothing reads this stream yet: run the command again. Is the disk of NATS full?",
            )
        self.end = last

    async def send(self, messages: Sequence[Load]) -> PublishOutcome:
        """Send messages as one atomic batch; return the answer to its last message."""
        batch = secrets.token_hex(8)
        answers: list[asyncio.Future[PublishOutcome]] = []
        try:
            for number, message in enumerate(messages, 1):
                headers = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                if number == 1:
                    headers["Nats-Expected-Last-Sequence"] = str(self.end)
                if number < len(messages):
                    await self._publisher.send(message.subject, message.body, headers)
                else:
                    headers["Nats-Batch-Commit"] = "1"
                    answers.append(await self._publisher.publish(message.subject, message.body, headers))
        except (nats.errors.Error, OSError) as error:
            return Unanswered(str(error) or type(error).__name__)
        return (await self._publisher.outcomes(answers, ANSWER_SECONDS))[0]
