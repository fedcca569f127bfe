"""Connecting to NATS: a server that refuses the credentials is told apart from one that is not there."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

import pytest

from runstream.errors import InternalError
from runstream.jetstream.connection import nats_connection

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
