"""Waiting for a log that somebody else makes or restores."""

from __future__ import annotations

import asyncio

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from runstream.bounded import heard
from runstream.log.streams import described

WAIT_SECONDS = 120.0
_LOOK_SECONDS = 1.0
log = structlog.get_logger()


async def until_described(nc: Client, namespace: str, service: str = "runs", *, seconds: float = WAIT_SECONDS) -> bool:
    """Wait until there is a log that can be opened; False when there is none after these seconds."""
    said = asyncio.Event()

    async def on_change(_: Msg) -> None:
        said.set()

    # What is stored in the bucket is a message like any other, also before the bucket is there.
    subscription = await nc.subscribe(f"$KV.{namespace}_control.{service}", cb=on_change)
    try:
        await nc.flush()
        async with asyncio.timeout(seconds):
            if await described(nc, namespace, service) is None:
                log.info("there is no log yet; waiting for who makes it", action="log_awaited", namespace=namespace)
            while await described(nc, namespace, service) is None:
                # Who listens may hear of it before it is stored: so look again without having heard anything.
                await heard(said, _LOOK_SECONDS)
                said.clear()
        return True
    except TimeoutError:
        return False
    finally:
        await subscription.unsubscribe()
