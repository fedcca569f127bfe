"""Maintenance of a whole deployment: six processes, each with its own part, one of which is killed."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from runstream.client import Client, ClientError, Instance, Maintenance
from tests.acceptance.deployment import TOKEN, Deployment, deployed

LOST_SECONDS = 15


async def until(client: Client, reached: Callable[[Maintenance], bool]) -> Maintenance:
    """The status as soon as it is as asked for, told by changes."""
    status = await client.maintenance.status()
    while not reached(status):
        status = await client.maintenance.status(unlike=status.tag)
    return status


def of(status: Maintenance, pid: int) -> Instance:
    (found,) = (instance for instance in status.instances if instance.pid == pid)
    return found


@pytest.mark.seconds(150)
async def test_six_processes_park_and_one_is_killed(tmp_path: Path) -> None:
    async with deployed(tmp_path, "--driver", "noop") as deployment, deployment.client() as client:
        run = await a_run(client)
        done = await deployment.run("maintenance", "enable", "--wait", "--reason", "moving house")
        assert done.code == 0, done.err
        assert "everybody is parked" in done.out
        status = await client.maintenance.status()
        assert status.requested
        assert status.current
        assert [instance.state for instance in status.instances] == ["parked"] * 6
        assert {instance.components for instance in status.instances} == {("gateway",), ("scheduler",), ("executor",)}
        assert {instance.pid for instance in status.instances} == {p.pid for p in deployment.processes.values()}
        schedulers = [one for one in status.instances if one.components == ("scheduler",)]
        assert sorted(int(p) for one in schedulers for p in one.positions) == [0, 1, 2, 3]
        with pytest.raises(ClientError, match="in maintenance since .*moving house") as refused:
            await client.runs.get(run)
        assert refused.value.status == 503
        victim = deployment.processes["executor1"]
        pid = victim.pid
        async with asyncio.timeout(LOST_SECONDS):
            await victim.kill()
            status = await until(client, lambda status: of(status, pid).state == "lost")
        assert of(status, pid).last_state == "parked"
        assert status.parked
        await victim.start()
        status = await until(client, lambda status: of(status, victim.pid).state == "parked")
        assert len(status.instances) == 6
        done = await deployment.run("maintenance", "disable", "--wait", "--output", "json")
        assert done.code == 0, done.err
        assert {one["state"] for one in json.loads(done.out)["instances"]} == {"running"}
        again = await a_run(client)
        assert again != run
    assert not any(process.records("partition_undrained") for process in deployment.processes.values())


async def a_run(client: Client) -> str:
    """A run that has ended."""
    task = {"name": "one", "runtime": {"type": "host"}, "steps": [{"type": "run", "command": "true"}]}
    run = await client.runs.create(group="/project/web/branch/main", name="build", tasks={"one": task})
    async for _ in client.events.tail("start", run=run.id):
        now = await client.runs.get(run.id)
        if now.finished:
            return now.id
    raise AssertionError


def get(deployment: Deployment, path: str) -> tuple[int, str | None]:
    """The status and Retry-After of a request."""
    request = urllib.request.Request(f"{deployment.gateway.url}{path}", headers={"Authorization": f"token {TOKEN}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.headers["Retry-After"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Retry-After"]
