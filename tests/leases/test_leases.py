"""A lease lasts as long as its holder lives, and every watcher learns when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runstream.errors import BadRequestError
from runstream.jetstream.api import request
from runstream.leases import Lease, LeaseBucket, LeaseChange, LeaseLostError, LeaseWatch, open_leases
from tests.links import link
from tests.log.servers import connected, killed_and_started, own_server


@asynccontextmanager
async def a_board(url: str, namespace: str) -> AsyncIterator[LeaseBucket]:
    async with connected(url) as nc:
        yield await open_leases(nc, f"{namespace}_executors", seconds=2)


@asynccontextmanager
async def held(lease: Lease) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(lease.run())
    waiting = asyncio.create_task(lease.held.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield task
    finally:
        task.cancel()
        waiting.cancel()
        await asyncio.wait({task, waiting})


async def until(watch: LeaseWatch, what: str) -> LeaseChange:
    async for change in watch:
        if change.what == what:
            return change
    raise AssertionError


async def test_a_lease_is_seen_while_it_is_held_and_when_it_is_given_back(nats_url: str, namespace: str) -> None:
    async with a_board(nats_url, namespace) as board, board.watching() as watch:
        assert watch.held == {}
        async with held(board.lease("ex1", lambda: b"hello")):
            assert await anext(watch) == LeaseChange("ex1", "held", b"hello")
            async with board.watching() as late:
                assert late.held == {"ex1": b"hello"}
        assert await until(watch, "released") == LeaseChange("ex1", "released", b"")
        assert (watch.held, watch.released) == ({}, {"ex1"})
        async with board.watching() as late:
            assert (late.held, late.released) == ({}, {"ex1"})
            async with held(board.lease("ex1", lambda: b"again")):
                await until(late, "held")
                assert late.released == set()


async def test_a_lease_that_is_renewed_does_not_end(nats_url: str, namespace: str) -> None:
    async with a_board(nats_url, namespace) as board, board.watching() as watch:
        renewals = 0

        def value() -> bytes:
            nonlocal renewals
            renewals += 1
            return str(renewals).encode()

        async with held(board.lease("ex1", value)):
            seen = [await anext(watch) for _ in range(5)]
        assert [(change.what, change.value) for change in seen] == [("held", str(n).encode()) for n in range(1, 6)]


async def test_a_value_that_changed_is_written_at_once(nats_url: str, namespace: str) -> None:
    async with a_board(nats_url, namespace) as board, board.watching() as watch:
        value = b"one"
        lease = board.lease("ex1", lambda: value)
        async with held(lease):
            await anext(watch)
            value = b"two"
            lease.touch()
            assert (await anext(watch)).value == b"two"


async def test_a_holder_that_died_is_expired(nats_url: str, namespace: str) -> None:
    async with a_board(nats_url, namespace) as board, board.watching() as watch:
        async with connected(nats_url) as nc:
            dying = asyncio.create_task(
                (await open_leases(nc, board.bucket, seconds=2)).lease("ex1", lambda: b"x").run()
            )
            await anext(watch)
        # Without a connection nothing is given back.
        dying.cancel()
        await asyncio.wait({dying})
        assert await until(watch, "expired") == LeaseChange("ex1", "expired", b"")
        assert watch.held == {}


async def test_a_deleted_lease_is_noticed_by_its_holder(nats_url: str, namespace: str) -> None:
    async with a_board(nats_url, namespace) as board:
        lease = board.lease("ex1", lambda: b"x")
        async with held(lease) as task:
            await board.delete("ex1")
            lease.touch()
            with pytest.raises(LeaseLostError, match="deleted, or had expired"):
                await task
            assert not lease.held.is_set()


async def test_the_newest_holder_wins_and_the_older_one_notices(nats_url: str, namespace: str) -> None:
    async with a_board(nats_url, namespace) as board:
        old, new = board.lease("ex1", lambda: b"old"), board.lease("ex1", lambda: b"new")
        async with held(old) as older, held(new):
            old.touch()
            with pytest.raises(LeaseLostError, match="another process holds it"):
                await older
            async with board.watching() as watch:
                assert watch.held == {"ex1": b"new"}


async def test_a_lease_can_be_taken_again_after_it_ended(nats_url: str, namespace: str) -> None:
    async with a_board(nats_url, namespace) as board, board.watching() as watch:
        for value in (b"1", b"2"):
            async with held(board.lease("ex1", lambda value=value: value)):  # type: ignore[misc]
                assert await until(watch, "held") == LeaseChange("ex1", "held", value)
            await until(watch, "released")


async def test_a_watch_whose_consumer_is_deleted_tells_what_changed_meanwhile(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        board = await open_leases(nc, f"{namespace}_executors", seconds=2)
        async with board.watching() as watch, held(board.lease("ex1", lambda: b"1")):
            assert (await anext(watch)).key == "ex1"
            for name in (await request(nc, f"CONSUMER.NAMES.KV_{board.bucket}"))["consumers"]:
                await request(nc, f"CONSUMER.DELETE.KV_{board.bucket}.{name}")
            await board.delete("ex1")
            async with held(board.lease("ex2", lambda: b"2")):
                changes = {(change := await anext(watch)).key: change.what for _ in range(2)}
                assert changes == {"ex1": "released", "ex2": "held"}


async def test_leases_survive_a_server_that_is_killed(tmp_path: Path) -> None:
    async with own_server(tmp_path) as server, connected(server.url) as nc:
        board = await open_leases(nc, "executors", seconds=10)
        value = b"before"
        lease = board.lease("ex1", lambda: value)
        async with board.watching() as watch, held(lease) as task:
            await anext(watch)
            await killed_and_started(server)
            value = b"after"
            lease.touch()
            changes = [await anext(watch)]
            while changes[-1].value != b"after":
                changes.append(await anext(watch))
            assert {change.what for change in changes} == {"held"}
            assert not task.done()


async def test_a_holder_cut_off_gives_up_before_others_see_it_expire(tmp_path: Path) -> None:
    async with own_server(tmp_path) as server, connected(server.url) as nc:
        board = await open_leases(nc, "executors", seconds=2)
        async with held(board.lease("ex1", lambda: b"x")) as task:
            await server.stop()
            with pytest.raises(LeaseLostError, match="could not be renewed in time"):
                await task


async def test_a_holder_whose_link_is_cut_gives_up_before_others_see_it_expire(nats_url: str, namespace: str) -> None:
    """Requests get no answer; waiting for their timeouts must not extend the trust in the lease."""
    async with (
        a_board(nats_url, namespace) as board,
        board.watching() as watch,
        link(nats_url) as cable,
        connected(cable.url) as nc,
        held((await open_leases(nc, board.bucket, seconds=2)).lease("ex1", lambda: b"x")) as task,
    ):
        cable.cut()
        expiry = asyncio.create_task(until(watch, "expired"))
        await asyncio.wait({task, expiry}, return_when=asyncio.FIRST_COMPLETED)
        assert not expiry.done()
        with pytest.raises(LeaseLostError, match="could not be renewed in time"):
            await task
        expiry.cancel()


async def test_a_lease_that_is_too_short_is_refused(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc:
        with pytest.raises(BadRequestError, match="too short"):
            await open_leases(nc, f"{namespace}_executors", seconds=1)
