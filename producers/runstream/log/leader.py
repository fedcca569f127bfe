"""What the leader of a stream knows, where the server that answers may be a leader no more.

A leader that is cut off from its peers goes on answering until it notices, which takes up to an election time-out.
Then it lacks what the next leader has acknowledged. So a stream that ends before a position that was read already is
asked again, for that long. A stream without replicas has one leader, which is right at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from nats.aio.client import Client

from runstream.jetstream.api import REQUEST_SECONDS, UnavailableError, request

ELECTION_SECONDS = 15.0
"""How long nats-server needs at most to notice that it leads no more (10 s), and to elect another leader."""
_PAUSE_SECONDS = 0.5
log = structlog.get_logger()


async def stream_info(
    nc: Client, stream: str, at_least: int = 0, *, seconds: float = REQUEST_SECONDS
) -> dict[str, Any]:
    """Return what STREAM.INFO says, once the stream ends at `at_least` or it is certain that it does not.

    Raises UnavailableError, ApiError.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + ELECTION_SECONDS
    while True:
        try:
            info = await request(nc, f"STREAM.INFO.{stream}", seconds=seconds)
        except UnavailableError:  # perhaps an election, which is what we wait for
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
