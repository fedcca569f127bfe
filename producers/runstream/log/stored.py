"""Messages of JetStream as messages of the log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from runstream.commits import Position
from runstream.jetstream.api import StreamMessage
from runstream.jetstream.pull import Delivery
from runstream.log.port import RawMessage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def of_delivery(delivery: Delivery, epoch: int, partition: int) -> RawMessage:
    """What a consumer delivered."""
    message = delivery.message
    return RawMessage(
        message.subject,
        Position(epoch, partition, delivery.sequence),
        message.data,
        message.headers or {},
        _EPOCH + timedelta(microseconds=delivery.nanoseconds // 1000),
    )


def of_stream(message: StreamMessage, epoch: int, partition: int) -> RawMessage:
    """What was asked for by subject."""
    position = Position(epoch, partition, message.sequence)
    return RawMessage(message.subject, position, message.data, message.headers, message.time)
