"""How processes learn of maintenance, and what their peers know of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from nats.aio.client import Client

from runstream.errors import BadRequestError, InternalError, NotExistError
from runstream.jetstream.api import publish, request
from runstream.log.streams import FORMAT, LogDescription
from runstream.maintenance.records import State
from runstream.subjects import Subjects
from tests.links import link
from tests.log.commits import created, run_address
from tests.log.servers import killed_and_started, own_server

from .world import order, world


async def test_all_park_and_go_on(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        members = [await around.member("scheduler"), await around.member("executor")]
        await around.all_are("running")
        asked = await around.control.enable("runs", order())
        known = await around.all_are("parked")
        assert len(known) == 2
        assert all(one.is_parked("runs", asked.id) for one in known)
        for member in members:
            with pytest.raises(InternalError, match="in maintenance"):
                await member.log.append(created(run_address()))
        late = await around.member("gateway")
        assert late.mode.state is State.PARKED
        await around.control.disable("runs", order())
        await around.all_are("running")
        for member in [*members, late]:
            await member.log.append(created(run_address()))


async def test_a_stopped_process_is_gone_and_a_killed_one_is_lost(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        stays, leaves, dies = [await around.member(name) for name in ("gateway", "scheduler", "executor")]
        await around.until(lambda known: len(known) == 3)
        await leaves.stop()
        await around.until(lambda known: len(known) == 2)
        with pytest.raises(BadRequestError, match="not lost"):
            await around.roster.forget(dies.instance.id)
        await dies.die()
        known = await around.until(lambda known: any(one.lost for one in known))
        assert [(one.record.components, one.state("runs")) for one in known] == [
            (("gateway",), State.RUNNING),
            (("executor",), State.LOST),
        ]
        status = await around.overview(stays).status("runs")
        assert [(one.state, one.last_state) for one in status.instances] == [
            ("running", "running"),
            ("lost", "running"),
        ]
        await around.roster.forget(dies.instance.id)
        await around.until(lambda known: len(known) == 1)
        with pytest.raises(NotExistError):
            await around.roster.forget(dies.instance.id)


async def test_a_restart_takes_the_place_of_what_was_lost(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        before = await around.member("executor", instance_id="the-one")
        await before.die()
        await around.until(lambda known: any(one.lost for one in known))
        await around.member("executor", instance_id="the-one")
        known = await around.until(lambda known: not any(one.lost for one in known))
        assert len(known) == 1


async def test_a_waiting_client_is_notified_of_a_change(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        member = await around.member("gateway")
        await around.all_are("running")
        overview = around.overview(member)
        first = await overview.status("runs")
        assert (await overview.status("runs", unlike=first.tag, seconds=0)).tag == first.tag
        waiting = asyncio.create_task(overview.status("runs", unlike=first.tag, seconds=30))
        await around.control.enable("runs", order())
        second = await waiting
        assert second.tag != first.tag
        assert second.requested
        while not second.parked:
            second = await overview.status("runs", unlike=second.tag, seconds=30)
        assert second.current
        assert [change.why for change in second.history] == ["a test"]


async def test_only_working_processes_are_members(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        one = await around.member("scheduler")
        await around.member("executor")
        members = one.instance.members("scheduler")
        assert await anext(members) == {one.instance.id}
        two = await around.member("scheduler")
        assert await anext(members) == {one.instance.id, two.instance.id}
        await two.stop()
        assert await anext(members) == {one.instance.id}


async def test_a_process_that_cannot_renew_its_presence_has_no_members(nats_url: str, namespace: str) -> None:
    """It gives its share up, also where the connection stays open and nothing arrives."""
    async with world(nats_url, namespace) as around, link(nats_url) as cable:
        other = await around.member("scheduler")
        cut = await around.member("scheduler", url=cable.url)
        both = {other.instance.id, cut.instance.id}
        members, of_the_other = cut.instance.members("scheduler"), other.instance.members("scheduler")
        assert await anext(members) == await anext(of_the_other) == both
        cable.cut()
        assert await anext(members) == set()
        assert await anext(of_the_other) == {other.instance.id}
        cable.mend()
        assert await anext(of_the_other) == both
        while await anext(members) != both:
            pass


async def test_a_part_that_does_not_reach_what_it_needs_is_no_member(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        one, two = await around.member("scheduler"), await around.member("scheduler")
        members = one.instance.members("scheduler")
        both = await anext(members)
        assert both == {one.instance.id, two.instance.id}
        for able, wanted in ((False, {one.instance.id}), (True, both)):
            two.instance.can("scheduler", able)
            while await anext(members) != wanted:  # a renewal may come first
                pass


async def test_a_new_epoch_is_found_when_maintenance_ends(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        member = await around.member("scheduler")
        await around.control.enable("runs", order())
        await around.all_are("parked")
        await _second_epoch(around.nc, namespace)
        assert member.log.epoch == 1
        await around.control.disable("runs", order())
        known = await around.all_are("running")
        assert [one.record.services["runs"].epoch for one in known] == [2]
        position = await member.log.append(created(run_address()))
        assert (position.epoch, position.sequence) == (2, 1)


async def _second_epoch(nc: Client, namespace: str) -> None:
    """What an import makes: streams, then the description."""
    first = await request(nc, f"STREAM.INFO.{namespace}_runs_1_0")
    for partition in range(2):
        subjects = Subjects(namespace, "runs", 2)
        metadata = {key: value for key, value in first["config"]["metadata"].items() if not key.startswith("_nats")}
        config = first["config"] | {
            "name": subjects.stream(partition),
            "subjects": [f"{subjects.prefix(partition)}.>"],
            "metadata": metadata | {"epoch": "2"},
        }
        await request(nc, f"STREAM.CREATE.{subjects.stream(partition)}", config)
    await publish(nc, f"$KV.{namespace}_control.runs", orjson.dumps(LogDescription(2, 2, FORMAT)), {})


async def test_a_crash_of_nats_is_survived(tmp_path: Path, namespace: str) -> None:
    async with own_server(tmp_path / "nats") as server, world(server.url, namespace) as around:
        members = [await around.member("scheduler"), await around.member("executor")]
        await around.control.enable("runs", order())
        await around.all_are("parked")
        await killed_and_started(server)
        await around.nc.came_back.wait()
        await around.control.disable("runs", order())
        await around.until(lambda known: [one.state("runs") for one in known] == [State.RUNNING] * 2)
        for member in members:
            await member.log.append(created(run_address()))
