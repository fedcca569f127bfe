"""Room for the store of the embedded NATS: a server that is full is restarted once there is room again.

nats-server fixes its limit at its start, and after an error of the disk it writes nothing more to the stream of the
error, while it may write to others. In both cases it refuses forever what it could store again.
"""

from __future__ import annotations

import asyncio

import structlog
from nats.aio.client import Client

from runstream.embedded import NatsServer
from runstream.jetstream.failover import answers_of

LOOK_SECONDS = 2.0
ROOM_BYTES = 16 << 20
"""How much more than it has stored a server must be able to store, to be worth a restart."""
MAX_PAUSE_SECONDS = 300.0
log = structlog.get_logger()


async def keep_room(
    server: NatsServer, nc: Client, *, room: int = ROOM_BYTES, look_seconds: float = LOOK_SECONDS
) -> None:
    """Restart the server whenever it refuses to store and there is room, until cancelled."""
    pause = look_seconds
    while True:
        await asyncio.sleep(pause)
        report = await asyncio.to_thread(server.refused_write)
        why = answers_of(nc).full or report
        if not why:
            pause = look_seconds
            continue
        answers_of(nc).full = why
        left = await asyncio.to_thread(_left, server)
        if left < room:
            log.warning(
                f"the store of NATS is full: {why}; {left >> 20} MiB are left for it",
                action="nats_store_full",
                why=why,
                left=left,
            )
            continue
        log.warning(
            f"the store of NATS refuses to write ({why}), and {left >> 20} MiB are free: restarting the server",
            action="nats_restarted",
            left=left,
        )
        answers_of(nc).full = ""
        await server.restart()
        pause = min(max(pause, 1.0) * 2, MAX_PAUSE_SECONDS)


def _left(server: NatsServer) -> int:
    return server.possible_limit() - server.stored_bytes()
