"""Connecting to NATS: a server that refuses the credentials is told apart from one that is not there."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

import pytest
from nats.aio.client import Client

from runstream.errors import InternalError
from runstream.jetstream.api import request
from runstream.jetstream.connection import nats_connection
from tests.links import link

_INFO = {"server_id": "X", "version": "2.15.1", "proto": 1, "max_payload": 1 << 20, "auth_required": True}


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Refuse as a quick server does: who has sent more than the credentials by then gets a reset, and no answer."""
    writer.write(b"INFO " + json.dumps(_INFO).encode() + b"\r\n")
    connect = json.loads((await reader.readline()).removeprefix(b"CONNECT "))
    if connect["verbose"]:
        writer.write(b"-ERR 'Authorization Violation'\r\n")
        await writer.drain()
    else:
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    writer.close()


async def test_refused_by_a_server_whose_answer_is_lost_in_a_reset() -> None:
    async with await asyncio.start_server(_refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InternalError, match="refuses these credentials") as caught:
            async with nats_connection(f"nats://somebody:sesame99@127.0.0.1:{port}"):
                pass
    assert caught.value.code == "natsUnauthorized"
    assert "sesame99" not in caught.value.message


async def test_a_question_whose_answer_is_lost_is_asked_again(nats_url: str) -> None:
    async with link(nats_url) as nats, nats_connection(nats.url) as nc:
        nats.answers_to_lose = 1
        assert (await request(nc, "INFO"))["limits"]


async def test_a_link_that_swallows_everything_is_noticed_whatever_waits_to_be_sent(nats_url: str) -> None:
    async with link(nats_url) as nats, nats_connection(nats.url) as nc:
        nats.cut()
        for _ in range(100):
            await nc.publish("nowhere", bytes(1 << 18))  # more than the buffers of the link and its sockets take
        await _until(nc, connected=False)
        nats.break_off()
        nats.mend()
        await _until(nc, connected=True)
        assert (await request(nc, "INFO"))["limits"]


async def _until(nc: Client, *, connected: bool) -> None:
    while nc.is_connected is not connected:  # noqa: ASYNC110 - the library has no event for it
        await asyncio.sleep(0.05)  # sleeps: the client has no event for it
