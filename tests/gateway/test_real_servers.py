"""The gateway on real servers, with a scheduler behind it: what was written is read, over HTTP, by the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from runstream.client import Client, ClientError, NewRun, RunPhase, RunResult
from runstream.gateway.app import Backends, Gateway
from runstream.jetstream.messaging import Questions
from runstream.objects import PosixObjects
from runstream.objects.references import SharedObjects
from runstream.projections.as_of import RunsAsOf
from runstream.settings import Settings
from runstream.telemetry import setup_logging
from runstream.telemetry.process import Telemetry
from tests.gateway.world import TOKEN, FakeCaches, FakeStepLogs, run_body
from tests.scheduler.standing import FakeExecutor, Standing, running, standing
from tests.servers import Servers

GROUP = "/project/web/branch/main"
TASKS = run_body()["run_config_tasks"]


@asynccontextmanager
async def running_gateway(around: Standing, folder: Path, wait_seconds: float = 30.0) -> AsyncIterator[Client]:
    setup_logging("error")
    settings = Settings(data_dir=folder, token=TOKEN)
    telemetry = Telemetry("test", CollectorRegistry(), [])
    shared = SharedObjects(PosixObjects(folder / "objects"))
    past, questions = RunsAsOf(around.log), Questions(around.nats)
    behind = Backends(around.log, around.database, past, FakeStepLogs(), FakeCaches(), shared, questions)
    gateway = Gateway(settings, behind, telemetry)
    await gateway.start()
    try:
        async with Client(gateway.url, token=TOKEN, wait_seconds=wait_seconds) as client:
            yield client
    finally:
        await gateway.stop()


async def test_a_run_is_followed_from_its_creation_to_its_end(servers: Servers, tmp_path: Path) -> None:
    async with (
        standing(servers) as around,
        running(await around.scheduler()),
        FakeExecutor(around, "e1").alive(),
        running_gateway(around, tmp_path) as client,
    ):
        created = await client.runs.create(NewRun(GROUP, "main", TASKS))
        assert (await client.runs.get(created.id)).counter == 1
        position = ""
        tail = client.events.tail(run=created.id)
        async for commit in tail:
            position = commit.position
            if "RunFinished" in {event.type for event in commit.events}:
                break
        await tail.aclose()
        run = await client.runs.get(created.id, at_least=position)
        assert (run.phase, run.result) == (RunPhase.FINISHED, RunResult.SUCCESS)
        (task,) = run.tasks.values()
        assert (task.status, task.executor_id, task.steps[0].exit_status) == ("success", "e1", 0)
        assert (await client.runs.by_number(GROUP, 1)).id == run.id


async def test_pages_filters_and_a_reader_who_did_not_write(servers: Servers, tmp_path: Path) -> None:
    async with (
        standing(servers) as around,
        running(await around.scheduler()),
        running_gateway(around, tmp_path) as client,
        Client(client.url, token=TOKEN) as reader,
    ):
        runs = [await client.runs.create(NewRun(f"/project/p{n % 3}/x", f"r{n}", TASKS)) for n in range(45)]
        assert (await reader.runs.get(runs[-1].id)).name == "r44"
        listed = [run async for run in client.runs.list()]
        assert {run.id for run in listed} == {run.id for run in runs}
        assert [run.sequence for run in listed] == sorted((run.sequence for run in listed), reverse=True)
        of_one = [run.name async for run in client.runs.list(groups=["/project/p0"], ascending=True)]
        assert of_one == [f"r{n}" for n in range(0, 45, 3)]
        last = await client.runs.page(groups=["/project"], last_run=True)
        assert {run.name for run in last.runs} == {"r42", "r43", "r44"}


async def test_actions_on_what_was_just_created(servers: Servers, tmp_path: Path) -> None:
    async with (
        standing(servers) as around,
        running_gateway(around, tmp_path) as client,
    ):
        run = await client.runs.create(NewRun(GROUP, "main", TASKS))
        await client.runs.cancel(run.id)
        with pytest.raises(ClientError, match="the run is cancelled and cannot be stopped"):
            await client.runs.stop(run.id)


async def test_a_read_does_not_wait_for_ever(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.gateway.reads.FRESH_SECONDS", 0.1)
    async with (
        standing(servers) as around,
        running_gateway(around, tmp_path, wait_seconds=0.0) as client,
    ):
        run = await client.runs.create(NewRun(GROUP, "main", TASKS))
        with pytest.raises(ClientError) as caught:
            await client.runs.get(run.id)
        assert (caught.value.status, caught.value.code) == (503, "projectionBehind")
        with pytest.raises(ClientError, match="not one of this log"):
            await client.runs.get(run.id, at_least="1/9/1")


async def test_a_client_waits_for_a_projection_that_is_behind(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.gateway.reads.FRESH_SECONDS", 0.1)
    why, waits = list[str](), asyncio.Event()

    def waiting(reason: str) -> None:
        why.append(reason)
        waits.set()

    async with (
        standing(servers) as around,
        running_gateway(around, tmp_path) as other,
        Client(other.url, token=TOKEN, waiting=waiting) as client,
    ):
        run = await client.runs.create(NewRun(GROUP, "main", TASKS))
        reading = asyncio.create_task(client.runs.get(run.id))
        await waits.wait()
        async with running(await around.scheduler()):
            assert (await reading).id == run.id
    assert why[0].startswith("the projection has not reached position ")
