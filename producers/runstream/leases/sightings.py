"""Which executors are alive now, read from their leases when a user asks."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from runstream.domain.executor import Offer, Sighting
from runstream.leases import LeaseBoard
from runstream.leases.offers import decode_offer

log = structlog.get_logger()


class ExecutorSightings:
    """The leases of executors."""

    def __init__(self, board: LeaseBoard) -> None:
        """`board` is that of `<namespace>_executors`."""
        self._board = board

    async def seen(self) -> dict[str, Sighting]:
        """Every executor that holds its lease, by id. Raises UnavailableError."""
        async with self._board.watching() as watch:
            held, stored = watch.held, watch.stored
        now = await self._board.server_time()
        found: dict[str, Sighting] = {}
        for key, value in held.items():
            offer = decode_offer(key, value)
            if offer is not None:
                found[key] = sighting(offer, stored[key], now)
        return found


def sighting(offer: Offer, nanoseconds: int, now: datetime) -> Sighting:
    """What a lease written at this time of the server's clock says at `now` of the same clock."""
    seen = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    skew = offer.at - nanoseconds / 1e9 if offer.at else 0.0
    return Sighting(offer, seen, max((now - seen).total_seconds(), 0.0), skew)
