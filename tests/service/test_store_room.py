"""A NATS whose store is full says so within seconds; the embedded one is restarted once there is room.

Small disks are tmpfs; without the right to mount one these tests are skipped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client

from runstream.embedded import NatsServer
from runstream.errors import InternalError
from runstream.gateway.answers import entry, status_of, told
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.leaving import answers_of
from runstream.jetstream.store import store_use
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.service.store_room import keep_room
from tests.disks import take_all
from tests.log.commits import created, run_address

NAME = os.urandom(100_000).hex()


@asynccontextmanager
async def opened(server: NatsServer) -> AsyncIterator[tuple[Client, JetStreamLog]]:
    await server.start()
    try:
        async with (
            nats_connection(server.url) as nc,
            await open_log(nc, "full", create=True, partitions=1, append_seconds=10) as log,
        ):
            yield nc, log
    finally:
        await server.stop()


async def filled(log: JetStreamLog) -> InternalError:
    """Append until the store is full; what the last append raised, within five seconds."""
    while True:
        try:
            async with asyncio.timeout(5):
                await log.append(created(run_address(), name=NAME))
        except InternalError as error:
            return error


async def test_a_limit_that_is_reached_is_named_at_once(tmp_path: Path) -> None:
    async with opened(NatsServer(tmp_path / "nats", max_store_bytes=4 << 20)) as (nc, log):
        error = await filled(log)
        assert (status_of(told(error)), error.code) == (503, "notStored")
        assert "store of NATS" in error.message
        assert "restart" in error.hint
        details = entry(error, detailed=False)["details"]
        assert (details["dependency"], details["store"], details["uncertain"]) == ("nats", "nats", False)
        use = await store_use(nc)
        assert use.limit == 4 << 20
        assert use.left is not None
        assert use.left < len(NAME)
        assert answers_of(nc).full


async def test_a_server_that_reached_its_limit_is_restarted_when_the_disk_has_room(small_disk: Path) -> None:
    server = NatsServer(small_disk / "nats")
    async with opened(server) as (nc, log):
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(14 << 20))
        await server.restart()  # its limit is what is left now
        await asyncio.wait_for(_again(log), 10)
        await filled(log)
        ballast.unlink()
        await _goes_on(server, nc, log)


async def test_a_server_whose_disk_was_full_is_restarted_when_it_has_room(small_disk: Path) -> None:
    server = NatsServer(small_disk / "nats")
    async with opened(server) as (nc, log):
        await log.append(created(run_address()))
        ballast = small_disk / "ballast"
        take_all(ballast)
        error = await filled(log)
        assert (status_of(told(error)), error.code, error.details["uncertain"]) == (503, "notStored", True)
        ballast.unlink()
        await _goes_on(server, nc, log)


async def _goes_on(server: NatsServer, nc: Client, log: JetStreamLog) -> None:
    keeping = asyncio.create_task(keep_room(server, nc, room=4 << 20, look_seconds=0.1))
    try:
        await _again(log)
    finally:
        keeping.cancel()
    assert not answers_of(nc).full


async def _again(log: JetStreamLog) -> None:
    """Append as soon as that is possible."""
    while True:
        try:
            await log.append(created(run_address(), name=NAME))
        except InternalError:
            await asyncio.sleep(0.05)  # sleeps: nothing tells that there is room again
        else:
            return
