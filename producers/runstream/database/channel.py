"""What is announced on channels of the database, and how: notifications are committed with the rows they speak of."""

from __future__ import annotations

import hashlib

from runstream.commits import Position


def channel_of(schema: str) -> str:
    """The channel on which a schema's projected positions are announced."""
    return _channel("runstream", schema)


def retry_channel_of(schema: str) -> str:
    """The channel on which a partition's parked commits are asked to be tried again; the payload is the partition."""
    return _channel("runstream_retry", schema)


def announcement(position: Position) -> str:
    """The payload that says how far a partition is projected: EPOCH:PARTITION:SEQUENCE."""
    return f"{position.epoch}:{position.partition}:{position.sequence}"


def announced(payload: str) -> Position:
    """The position that a payload says."""
    epoch, partition, sequence = payload.split(":")
    return Position(int(epoch), int(partition), int(sequence))


def _channel(prefix: str, schema: str) -> str:
    """Channels are shared by a whole database, and their names are at most 63 bytes."""
    name = f"{prefix}_{schema}"
    return name if len(name.encode()) <= 63 else f"{prefix}_{hashlib.sha256(schema.encode()).hexdigest()[:32]}"
