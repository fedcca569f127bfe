"""A NATS whose store is full says so within seconds; the embedded one is restarted once there is room.

Small disks are tmpfs; without the right to mount one these tests are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry

from runstream.commits import Position
from runstream.embedded import NatsServer
from runstream.errors import InternalError
from runstream.feed import read_up_to
from runstream.gateway.errors import error_entry, public_error, status_of
from runstream.gateway.runs.create import RunCreation
from runstream.jetstream.api import StoreUse, publish, store_use
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.failover import answers_of
from runstream.leases import open_leases
from runstream.log.jetstream import APPEND_SECONDS, JetStreamLog, open_log
from runstream.objects import PosixObjects
from runstream.service.doctor import nats_server
from runstream.service.platform import Platform
from runstream.service.servers import keep_room
from runstream.settings import Settings
from runstream.telemetry.health import check_all
from runstream.telemetry.metrics import APPEND_RETRIES
from runstream.telemetry.process import Telemetry
from tests.disks import take_all
from tests.gateway.world import TOKEN, Clock, World, run_body
from tests.log.commits import created, run_address
from tests.log.servers import killed_and_started

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
        assert (status_of(public_error(error)), error.code) == (503, "notStored")
        assert "store of NATS" in error.message
        assert "restart" in error.hint
        details = error_entry(error, detailed=False)["details"]
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


@pytest.mark.parametrize(
    ("use", "left", "full", "shown"),
    [
        (StoreUse(0, None), None, False, "0 MiB used, no limit"),
        (StoreUse(3 << 20, 8 << 20), 5 << 20, False, "3 of 8 MiB used, 5 MiB left"),
        (StoreUse(9 << 20, 8 << 20), 0, True, "9 of 8 MiB used, 0 MiB left"),
        (StoreUse(0, 809 << 20, 1000), 1000, True, "0 of 809 MiB used, 0 MiB left on its disk"),
        (StoreUse(0, 8 << 20, 900 << 20), 8 << 20, False, "0 of 8 MiB used, 8 MiB left"),
        (StoreUse(2 << 20, None, 7 << 20), 7 << 20, False, "2 MiB used, 7 MiB left on its disk"),
    ],
)
def test_free_space_is_the_smaller_of_limit_and_disk(use: StoreUse, left: int | None, full: bool, shown: str) -> None:
    assert (use.left, use.full, str(use)) == (left, full, shown)


async def test_a_full_disk_is_no_ready_service_before_and_after_something_was_to_be_stored(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.log.group_commit.ANSWER_SECONDS", 0.3)
    server = NatsServer(small_disk / "nats")
    async with opened(server) as (nc, log):
        settings = Settings(data_dir=small_disk, nats_url=server.url, namespace="full", token=TOKEN)
        objects, telemetry = PosixObjects(tmp_path), Telemetry("test", CollectorRegistry(), [])
        platform = Platform(settings, telemetry, nc, log, objects, None, "", server.folder)

        async def found() -> tuple[dict[str, str], str]:
            checks = await check_all(platform.checks())
            doctor = [one async for one in nats_server(settings, server.admin_url, server.folder)]
            return {one.what: one.status for one in doctor if "stor" in one.what}, checks["nats"]

        assert await found() == ({"NATS storage": "ok", "NATS store": "ok"}, "ok")
        take_all(small_disk / "ballast")
        stores, check = await found()
        assert stores == {"NATS storage": "problem", "NATS store": "problem"}
        assert "store of NATS takes no more" in check
        assert "0 MiB left on its disk" in check
        shown = await platform.facts()["nats_store"]()
        assert isinstance(shown, dict)
        assert shown["free"] == shown["left"] == 0 < shown["limit"]

        world = World.make()
        world.context = replace(
            world.context, log=log, creation=RunCreation(log, Clock().now, world.shared, world.context.keyring)
        )
        async with asyncio.timeout(APPEND_SECONDS), world.http() as http:
            answers = [await http.post("/runs", json=run_body()) for _ in range(2)]
        for answer in answers:
            (error,) = answer.json()
            assert (answer.status_code, error["code"], error["details"]["store"]) == (503, "notStored", "nats")
            assert error["message"].startswith("the run was not created: the store of NATS takes no more (")
            assert "free space" in error["hint"]
            assert "retry-after" in answer.headers
        answers_of(nc).folder = server.folder
        async with world.http() as http:
            ((error,),) = [answer.json() for answer in [await http.post("/runs", json=run_body())]]
        assert error["message"] == f"the run was not created: the disk of NATS is full ({server.folder}, 0 MB left)"


async def test_a_commit_that_a_full_store_does_not_answer_waits_for_no_more_than_others_did(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append to a silent server is sent twice, and not again by each commit that comes meanwhile or later."""
    monkeypatch.setattr("runstream.log.group_commit.ANSWER_SECONDS", 0.3)
    async with opened(NatsServer(small_disk / "nats")) as (nc, log):
        await log.append(created(run_address()))
        take_all(small_disk / "ballast")
        retried = APPEND_RETRIES.value("0")
        sent = await nc.subscribe(f"{log.subjects.prefix(0)}.>")
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(filled(log))
            await sent.next_msg()
            second = tasks.create_task(filled(log))
        assert APPEND_RETRIES.value("0") - retried <= 1
        retried = APPEND_RETRIES.value("0")
        third = await filled(log)
        assert APPEND_RETRIES.value("0") == retried
        assert {error.code for error in (first.result(), second.result(), third)} == {"notStored"}


async def test_no_acknowledged_commit_is_lost_when_the_disk_gets_full_and_the_server_is_killed(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.log.group_commit.ANSWER_SECONDS", 0.3)
    server, ballast = NatsServer(small_disk / "nats"), small_disk / "ballast"
    async with opened(server) as (_, log):
        acknowledged: dict[str, Position] = {}

        async def write() -> None:
            with contextlib.suppress(InternalError):
                while True:
                    commit = created(run_address(), name=NAME[:2000])
                    acknowledged[commit.id] = await log.append(commit)

        take_all(ballast)
        os.truncate(ballast, ballast.stat().st_size - (2 << 20))
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(write())
        assert acknowledged
        ballast.unlink()
        await killed_and_started(server)
        await _again(log)
        async with asyncio.timeout(10):
            messages = [one async for batch in read_up_to(log, 0, await log.end(0)) for one in batch]
    assert [message.position.sequence for message in messages] == list(range(1, len(messages) + 1))
    stored = {message.headers["Nats-Msg-Id"]: message.position for message in messages if message.data}
    assert stored.items() >= acknowledged.items()


async def test_a_server_whose_disk_was_full_is_restarted_when_it_has_room(small_disk: Path) -> None:
    server = NatsServer(small_disk / "nats")
    async with opened(server) as (nc, log):
        await log.append(created(run_address()))
        ballast = small_disk / "ballast"
        take_all(ballast)
        error = await filled(log)
        assert (status_of(public_error(error)), error.code, error.details["uncertain"]) == (503, "notStored", True)
        ballast.unlink()
        await _goes_on(server, nc, log)


async def test_a_server_that_refuses_leases_alone_is_restarted_when_it_has_room(small_disk: Path) -> None:
    """A full disk leaves single streams that are refused; others may have been spared."""
    server = NatsServer(small_disk / "nats")
    async with opened(server) as (nc, log):
        leases = await open_leases(nc, "full_instances", seconds=5)
        ballast = small_disk / "ballast"
        take_all(ballast)
        with pytest.raises(InternalError):  # noqa: PT012
            while True:
                await publish(nc, f"$KV.{leases.bucket}.a", NAME.encode(), {}, seconds=1)
        ballast.unlink()
        with pytest.raises(InternalError):  # it is refused although there is room
            await publish(nc, f"$KV.{leases.bucket}.a", b"small", {}, seconds=1)
        await log.append(created(run_address()))  # another stream is not
        assert not answers_of(nc).full
        assert NatsServer(small_disk / "nats").refused_write() == server.refused_write() != ""
        with pytest.raises(InternalError):
            await publish(nc, f"$KV.{leases.bucket}.a", b"small", {}, seconds=1)
        keeping = asyncio.create_task(keep_room(server, nc, room=4 << 20, look_seconds=0.1))
        try:
            while True:
                with contextlib.suppress(InternalError):
                    await publish(nc, f"$KV.{leases.bucket}.a", b"small", {}, seconds=1)
                    break
        finally:
            keeping.cancel()
        assert server.refused_write() == ""  # reports of the process before the restart are no reason for another one


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
