"""How a projected position is announced: a notification on the schema's channel, committed with the rows."""

from __future__ import annotations

import hashlib

from runstream.commits import Position


def channel_of(schema: str) -> str:
    """The channel of a schema. Channels are shared by a whole database, and their names are at most 63 bytes."""
    name = f"runstream_{schema}"
    return name if len(name.encode()) <= 63 else f"runstream_{hashlib.sha256(schema.encode()).hexdigest()[:32]}"


def announcement(position: Position) -> str:
    """The payload that says how far a partition is projected: EPOCH:PARTITION:SEQUENCE."""
    return f"{position.epoch}:{position.partition}:{position.sequence}"


def announced(payload: str) -> Position:
    """The position that a payload says."""
    epoch, partition, sequence = payload.split(":")
    return Position(int(epoch), int(partition), int(sequence))
