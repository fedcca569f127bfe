"""Maintenance of a whole deployment: six processes, each with its own part, one of which is killed."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from runstream.client import Client, ClientError, Instance, Maintenance, NewRun, Run, Task
from runstream.errors import ConflictError
from runstream.leases import open_leases
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.maintenance.lock import require_parked
from runstream.maintenance.request import MaintenanceControl
from tests.acceptance.deployment import TOKEN, Deployment, deployed, in_one_process
from tests.acceptance.load import Load, all_succeeded, nothing_is_missing, task
from tests.acceptance.story import reading
from tests.log.servers import connected

LOST_SECONDS = 15


async def until(client: Client, reached: Callable[[Maintenance], bool], service: str = "runs") -> Maintenance:
    """The status as soon as it is as asked for, told by changes."""
    status = await client.maintenance.status(service)
    while not reached(status):
        status = await client.maintenance.status(service, unlike=status.tag)
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
        assert "all processes are parked" in done.out
        status = await client.maintenance.status()
        assert status.requested
        assert status.current
        assert [instance.state for instance in status.instances] == ["parked"] * 6
        assert {instance.components for instance in status.instances} == {("gateway",), ("scheduler",), ("executor",)}
        assert {instance.pid for instance in status.instances} == {p.pid for p in deployment.processes.values()}
        schedulers = [one for one in status.instances if one.components == ("scheduler",)]
        assert sorted(int(p) for one in schedulers for p in one.positions) == [0, 1, 2, 3]
        with pytest.raises(ClientError, match=r"in maintenance since .*moving house") as refused:
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


@pytest.mark.seconds(180)
async def test_under_load_nothing_is_lost_and_nothing_is_appended(open_path: Path) -> None:
    async with deployed(open_path, "--driver", "noop", "--active-tasks-limit", "8") as deployment:
        load = Load(deployment, 800, 20)
        async with (
            deployment.client() as client,
            log_of(deployment) as log,
            reading(deployment.nats.url) as story,
            asyncio.TaskGroup() as group,
        ):
            publishing = group.create_task(load.publish())
            await story.until(lambda: len(story.ended) >= 30)
            await client.maintenance.enable()
            done = await deployment.run("maintenance", "status", "--wait")
            assert done.code == 0, done.err
            ends = [await log.end(partition) for partition in range(log.partitions)]
            await publishing
            assert {failed[:3] for failed in load.failed} == {"503"}
            fsck = await deployment.fsck()
            assert fsck.code == 0, fsck
            assert [await log.end(partition) for partition in range(log.partitions)] == ends
            status = await client.maintenance.status()
            assert all(one.parked for one in status.instances)
            assert (await deployment.run("maintenance", "disable", "--wait")).code == 0
            await story.all_over(set(load.accepted))
        all_succeeded(story, load.accepted)
        await nothing_is_missing(deployment, load, story)


@pytest.mark.seconds(150)
async def test_tasks_are_let_end_or_are_stopped_at_the_deadline(open_path: Path) -> None:
    gate = open_path / "gate"
    async with in_one_process(open_path, "--sandbox", "off") as deployment, deployment.client() as client:
        waits = task("waits", f"while [ ! -e {gate} ]; do sleep 0.1; done")
        first = await client.runs.create(NewRun("/project/a/branch/main", "first", {"waits": waits}))
        await run_until(client, first.id, lambda run: only(run).steps[0].phase == "running")
        assert (await deployment.run("maintenance", "enable")).code == 0
        status = await until(client, lambda status: status.instances[0].parts["executor"].under_way == 1)
        assert status.instances[0].state in ("requested", "draining")
        done = await deployment.run("maintenance", "enable")
        assert done.code == 1
        assert "maintenance mode already enabled" in done.err
        assert (await deployment.run("maintenance", "disable", "--wait")).code == 0
        gate.touch()
        assert (await run_until(client, first.id, lambda run: run.finished)).result == "success"
        gate.unlink()
        second = await client.runs.create(NewRun("/project/a/branch/main", "second", {"waits": waits}))
        await run_until(client, second.id, lambda run: only(run).steps[0].phase == "running")
        done = await deployment.run("maintenance", "enable", "--wait", "--deadline", "0s")
        assert done.code == 0, done.err
        assert (await deployment.run("maintenance", "disable", "--wait")).code == 0
        ended = await run_until(client, second.id, lambda run: run.finished)
        assert ended.result == "failed"
        assert "deadline of a maintenance" in only(ended).fail_error
        done = await deployment.run("maintenance", "disable")
        assert (done.code, "maintenance mode already disabled" in done.err) == (1, True)


@pytest.mark.seconds(150)
async def test_a_process_that_does_not_answer_is_not_taken_for_parked(tmp_path: Path) -> None:
    async with deployed(tmp_path, "--driver", "noop", executors=1) as deployment, deployment.client() as client:
        stopped = psutil.Process(deployment.processes["scheduler1"].pid)
        stopped.suspend()
        try:
            await client.maintenance.enable()
            status = await until(client, lambda status: of(status, stopped.pid).state == "lost" and status.parked)
            lost = of(status, stopped.pid)
            assert lost.last_state == "running"
            async with connected(deployment.nats.url) as nc:
                board = await open_leases(nc, "runstream_instances", seconds=3)
                with pytest.raises(ConflictError, match=f"scheduler {lost.id} .* is lost"):
                    await require_parked(MaintenanceControl(nc, "runstream"), board)
        finally:
            stopped.resume()
        await until(client, lambda status: [one.state for one in status.instances] == ["parked"] * 4)


async def test_the_token_is_asked_for(open_path: Path) -> None:
    async with in_one_process(open_path, "--driver", "noop") as deployment:
        async with Client(deployment.gateway.url, token="wrong") as client:
            for attempt in (client.maintenance.status(), client.maintenance.enable(), client.maintenance.disable()):
                with pytest.raises(ClientError) as refused:
                    await attempt
                assert refused.value.status == 401
        async with deployment.client() as client:
            assert (await client.maintenance.status("configstore")).service == "config"
            with pytest.raises(ClientError) as refused:
                await client.maintenance.status("nothing")
            assert refused.value.status == 400
            with pytest.raises(ClientError, match="deadline"):
                await client.maintenance.enable(deadline="soon")
        assert get(deployment, "/api/v1alpha/maintenance")[0] == 200


async def a_run(client: Client) -> str:
    """A run that has ended."""
    run = await client.runs.create(NewRun("/project/web/branch/main", "build", {"one": task("one", "true")}))
    return (await run_until(client, run.id, lambda run: run.finished)).id


def only(run: Run) -> Task:
    (found,) = run.tasks.values()
    return found


async def run_until(client: Client, run_id: str, reached: Callable[[Run], bool]) -> Run:
    """The run as soon as it is as asked for, told by its events."""
    async for commit in client.events.tail("start", run=run_id):
        run = await client.runs.get(run_id, at_least=commit.position)
        if reached(run):
            return run
    raise AssertionError


@asynccontextmanager
async def log_of(deployment: Deployment) -> AsyncIterator[JetStreamLog]:
    async with connected(deployment.nats.url) as nc, await open_log(nc, "runstream") as log:
        yield log


def get(deployment: Deployment, path: str) -> tuple[int, str | None]:
    """The status and Retry-After of a request."""
    request = urllib.request.Request(f"{deployment.gateway.url}{path}", headers={"Authorization": f"token {TOKEN}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.headers["Retry-After"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Retry-After"]
