"""Read one partition in order and without a gap, across lost consumers, lost connections and restarted servers.

The server that answers may no longer lead the stream. A leader that is cut off from its peers answers until it notices,
which takes up to an election timeout, and lacks what the next leader has acknowledged. So a reader asks again, for that
long, when a stream ends before a position that it has read already. A stream without replicas has one leader, whose
first answer is right.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from nats.aio.client import Client

from runstream.backoff import Backoff, retry
from runstream.commits import Position
from runstream.errors import InternalError
from runstream.jetstream.api import REQUEST_SECONDS, StreamMessage, UnavailableError, request
from runstream.jetstream.pull import ConsumerLostError, Delivery, PullConsumer
from runstream.log.port import RawMessage

ELECTION_SECONDS = 15.0
"""Maximum time in which nats-server notices that it no longer leads (10 s) and elects another leader."""
_PAUSE_SECONDS = 0.5
log = structlog.get_logger()


async def stream_info(
    nc: Client, stream: str, at_least: int = 0, *, seconds: float = REQUEST_SECONDS
) -> dict[str, Any]:
    """Return the answer of STREAM.INFO once the stream ends at `at_least`, or it is certain that it does not.

    Raises UnavailableError, ApiError.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + ELECTION_SECONDS
    while True:
        try:
            info = await request(nc, f"STREAM.INFO.{stream}", seconds=seconds)
        except UnavailableError:  # perhaps an election, whose end this loop waits for
            if not at_least or not nc.is_connected or loop.time() >= give_up:
                raise
        else:
            end = info["state"]["last_seq"]
            if end >= at_least or info["config"]["num_replicas"] == 1 or loop.time() >= give_up:
                return info
            log.info(
                f"stream {stream} ends before position {at_least}: asking again, its leader may be an old one",
                action="stream_asked_again",
                stream=stream,
                end=end,
            )
        await asyncio.sleep(_PAUSE_SECONDS)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def of_delivery(delivery: Delivery, epoch: int, partition: int) -> RawMessage:
    """Convert a message that a consumer delivered."""
    message = delivery.message
    return RawMessage(
        message.subject,
        Position(epoch, partition, delivery.sequence),
        message.data,
        message.headers or {},
        _EPOCH + timedelta(microseconds=delivery.nanoseconds // 1000),
    )


def of_stream(message: StreamMessage, epoch: int, partition: int) -> RawMessage:
    """Convert a message that was read by its subject."""
    position = Position(epoch, partition, message.sequence)
    return RawMessage(message.subject, position, message.data, message.headers, message.time)


_BACKOFF = Backoff(0.05, 0.5)


class JetStreamReader:
    """A reader of one stream; `open` it before use, `close` it after."""

    def __init__(
        self, nc: Client, stream: str, epoch: int, partition: int, after: int, filters: tuple[str, ...]
    ) -> None:
        self._nc = nc
        self._stream = stream
        self._epoch = epoch
        self._partition = partition
        self._after = after
        self._filters = filters
        self._origin = ""
        """Creation time of the stream that is read."""
        self._consumer: PullConsumer | None = None
        self._pending = 0

    async def open(self) -> None:
        """Start to read. Raises InternalError when the stream ends before the position, or was created again."""
        info = await stream_info(self._nc, self._stream, self._after)
        if self._origin not in ("", info["created"]):
            raise InternalError(
                f"partition {self._partition} of the log was restored while it was read, and may lack what was read",
                code="logRestored",
                details={"partition": self._partition, "position": self._after},
                hint="start the process again: it reads the restored log",
            )
        end, self._origin = info["state"]["last_seq"], info["created"]
        if self._after > end:
            raise InternalError(
                f"position {self._after} is ahead of partition {self._partition}, which ends at {end}",
                code="positionAheadOfLog",
                details={"partition": self._partition, "position": self._after, "end": end},
                hint="was NATS restored from an older backup? Restore both to one moment, or rebuild the projection",
            )
        config: dict[str, object] = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._after + 1}
        if self._filters:
            config["filter_subjects"] = list(self._filters)
        consumer = PullConsumer(self._nc, self._stream, config)
        try:
            self._pending = (await consumer.open())["num_pending"]
        except BaseException:
            await consumer.close()
            raise
        self._consumer = consumer

    async def close(self) -> None:
        """Stop reading."""
        if self._consumer is not None:
            await self._consumer.close()
            self._consumer = None

    async def next_batch(self, limit: int = 500) -> list[RawMessage]:
        """Wait for the next messages, at least one, through outages of the server. Raises InternalError."""
        while True:
            if self._consumer is None:
                await self.open_when_there()
                continue
            try:
                deliveries = await self._consumer.deliveries(limit)
            except ConsumerLostError as error:
                log.debug("making a new consumer", action="reader_lost", stream=self._stream, why=error.message)
                await self.close()
                continue
            return self._messages(deliveries)

    def pending(self) -> int:
        """Return the number of remaining messages, as of the last one read."""
        return self._pending

    async def open_when_there(self) -> None:
        """Start to read once a server answers. Raises as `open` does for other failures."""
        await retry(self.open, UnavailableError, _BACKOFF, self._note_away)

    def _note_away(self, error: UnavailableError, _: float) -> None:
        if self._nc.is_closed:
            raise error
        log.warning("the log is away; trying again", action="log_away", stream=self._stream, why=error.message)

    def _messages(self, deliveries: list[Delivery]) -> list[RawMessage]:
        if not self._filters:
            expected = self._after + 1
            for delivery in deliveries:
                if delivery.sequence != expected:
                    raise InternalError(
                        f"partition {self._partition} has no message {expected}: after it comes {delivery.sequence}",
                        code="gapInLog",
                        details={"partition": self._partition, "missing": expected, "next": delivery.sequence},
                        hint="something has removed messages from the log; restore it from its data status or a backup",
                    )
                expected += 1
        self._after, self._pending = deliveries[-1].sequence, deliveries[-1].pending
        epoch, partition = self._epoch, self._partition
        return [of_delivery(delivery, epoch, partition) for delivery in deliveries]
