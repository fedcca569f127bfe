"""The config service as of a position: its log, folded from the beginning."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from runstream.config_folding import PARTITION, ConfigFold
from runstream.feed import read_skips, read_up_to
from runstream.log.port import ReadableLog
from runstream.projections.parked import ParkedCommit


async def fold_up_to(log: ReadableLog, sequence: int) -> ConfigFold:
    """Fold the log up to a sequence. Raises InternalError when the log fails."""
    fold = ConfigFold(await read_skips(log, PARTITION, sequence))
    async for messages in read_up_to(log, PARTITION, sequence):
        for message in messages:
            fold.take(message)
    return fold


async def parked_as_of(log: ReadableLog, positions: Sequence[int]) -> tuple[ParkedCommit, ...]:
    """Return the first parked commit of each aggregate as of a position, by position. Raises InternalError."""
    fold = await fold_up_to(log, positions[PARTITION])
    firsts = sorted((parked[0] for parked in fold.parked.values()), key=lambda one: one.position)
    now = datetime.now(UTC)
    return tuple(ParkedCommit(one.position, one.subject, one.aggregate, one.reason, now) for one in firsts)
