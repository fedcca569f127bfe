"""Connecting to NATS: a server that refuses the credentials is told apart from one that is not there."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats import connect
from nats.aio.client import Client

from runstream.errors import InternalError
from runstream.jetstream.api import UnavailableError, first_answer, header_lines, header_text, request
from runstream.jetstream.connection import SILENCE_SECONDS, nats_connection
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
            async with nats_connection(f"nats://alice:sesame99@127.0.0.1:{port}"):
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


async def test_a_frozen_server_is_left_for_another_one_whatever_earlier_outages_there_were(nats_url: str) -> None:
    async with (
        link(nats_url) as one,
        link(nats_url) as other,
        nats_connection(f"{one.url},{other.url}") as nc,
    ):
        first = nc.connected_url
        assert first is not None
        for server in nc._server_pool:  # noqa: SLF001 - an earlier outage of the other server, without its seconds
            server.reconnects = 9 if server.uri.port != first.port else 0
        (one if one.url.endswith(f":{first.port}") else other).cut()
        while not nc.stats["reconnects"]:  # noqa: ASYNC110 - the library has no event for it
            await asyncio.sleep(0.05)  # sleeps: the client has no event for it
        assert nc.connected_url is not None
        assert nc.connected_url.port != first.port
        assert (await request(nc, "INFO"))["limits"]


def test_a_silent_server_is_left_after_the_time_that_the_documents_promise() -> None:
    text = " ".join(Path("docs/explanation/architecture.md").read_text().split())
    assert f"for {SILENCE_SECONDS:g} seconds" in text


async def test_of_several_attempts_the_first_answer_counts(nats_url: str) -> None:
    attempts = 0

    async def ask(_: float) -> int:
        nonlocal attempts
        attempts += 1
        number = attempts
        if number == 1:
            await asyncio.Event().wait()
        if number == 2:
            raise UnavailableError("subject", "no leader")
        return number

    async with nats_connection(nats_url) as nc:
        assert await first_answer(nc, "STREAM.INFO.x", ask, 60.0, again=0.01) == 3


async def test_attempts_end_with_the_last_error_when_the_time_is_over(nats_url: str) -> None:
    async def ask(_: float) -> int:
        raise UnavailableError("subject", "no leader")

    async with nats_connection(nats_url) as nc:
        with pytest.raises(UnavailableError, match="no leader"):
            await first_answer(nc, "STREAM.INFO.x", ask, 0.05, again=0.01)


async def _until(nc: Client, *, connected: bool) -> None:
    while nc.is_connected is not connected:  # noqa: ASYNC110 - the library has no event for it
        await asyncio.sleep(0.05)  # sleeps: the client has no event for it


_VALUES = st.text() | st.sampled_from(["", " padded ", "1\r\n2", "a: b\r\n\r\nMSG x 1 0\r\n", "\u2028", "\x0b1\x0c"])


@given(st.dictionaries(st.sampled_from(["Nats-Msg-Id", "traceparent", "Runstream-Encoding", "Other"]), _VALUES))
def test_a_header_never_makes_another_one(headers: dict[str, str]) -> None:
    text = header_text(headers)
    if text is not None:
        lines = text.split(b"\r\n")
        assert (lines[0], lines[-2:], len(lines)) == (b"NATS/1.0", [b"", b""], len(headers) + 3)
        assert header_lines(b"\r\n".join(lines[1:])) == {name: value.strip() for name, value in headers.items()}
    else:
        assert "Other" in headers or any("\r" in value or "\n" in value for value in headers.values())


async def test_headers_arrive_as_the_library_sends_them(nats_url: str) -> None:
    odd = {"Nats-Msg-Id": " 1 ", "traceparent": "00-ü\t-1", "Runstream-Encoding": "zstd"}
    broken = {"Nats-Msg-Id": "1\r\n2", "Other": "x"}
    arrived: list[list[dict[str, str] | None]] = []
    async with nats_connection(nats_url) as ours:
        theirs = await connect(nats_url)
        for sender in (ours, theirs):
            inbox = await ours.subscribe(ours.new_inbox())
            await ours.flush()
            for headers in (odd, broken, {}):
                await sender.publish(inbox.subject, b"data", headers=headers)
            arrived.append([(await inbox.next_msg(5)).headers for _ in range(3)])
        await theirs.close()
    assert arrived[0] == arrived[1]
