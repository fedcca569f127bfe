"""Imports into a deployment in use: with every process parked, and through the API."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runstream.client import Client, NewRun
from runstream.commits import Head
from runstream.snapshots.compare import Comparison, compare
from runstream.snapshots.reading import open_snapshot
from runstream.subjects import Address
from tests.acceptance.deployment import Deployment, deployed, in_one_process
from tests.acceptance.load import task
from tests.factories import executor_registered
from tests.log.memory import MemoryLog
from tests.maintenance.test_processes import only, run_until, until
from tests.snapshots.files import CREATED, written


async def a_run(client: Client, name: str = "build") -> str:
    run = await client.runs.create(NewRun("/project/web/branch/main", name, {"one": task("one", "true")}))
    async for commit in client.events.tail("start", run=run.id):
        if (await client.runs.get(run.id, at_least=commit.position)).finished:
            return run.id
    raise AssertionError


async def exported(deployment: Deployment, path: Path) -> Path:
    """Export to this file, replacing an earlier export."""
    await asyncio.to_thread(path.unlink, missing_ok=True)
    done = await deployment.beside("export", "-o", str(path))
    assert done.code == 0, done.err
    return path


def compared(first: Path, second: Path) -> Comparison:
    with open_snapshot(first) as one, open_snapshot(second) as other:
        return compare(one, other)


@contextlib.asynccontextmanager
async def maintenance(deployment: Deployment) -> AsyncIterator[None]:
    done = await deployment.run("maintenance", "enable", "--service", "all", "--wait")
    assert done.code == 0, done.err
    yield
    done = await deployment.run("maintenance", "disable", "--service", "all", "--wait")
    assert done.code == 0, done.err


@pytest.mark.seconds(240)
async def test_runs_go_on_after_an_import_and_after_going_back(open_path: Path) -> None:
    async with deployed(open_path, "--driver", "noop", executors=2) as deployment, deployment.client() as client:
        first = await a_run(client)
        snapshot = await exported(deployment, open_path / "snapshot")
        second = await a_run(client)
        refused = await deployment.beside("import", str(snapshot))
        assert (refused.code, "not in maintenance mode" in refused.err) == (1, True)
        dry = await deployment.beside("import", str(snapshot), "--dry-run")
        assert (dry.code, dry.err, "nothing was changed" in dry.out) == (0, "", True)
        await exported(deployment, open_path / "later")
        dry = await deployment.beside("import", str(snapshot), "--dry-run")
        assert (dry.code, dry.err.count("was exported here before")) == (0, 1), dry.err
        async with maintenance(deployment):
            done = await deployment.beside("import", str(snapshot))
            assert done.code == 0, done.err
            assert "as epoch 2" in done.out
        assert (await client.runs.get(first)).result == "success"
        assert second not in [run.id for run in (await client.runs.page()).runs]
        third = await a_run(client, "after the import")
        assert (await client.runs.get(third)).counter == 2
        assert (await deployment.fsck()).code == 0
        async with maintenance(deployment):
            done = await deployment.beside("epochs", "activate", "1")
            assert done.code == 0, done.err
        assert (await client.runs.get(second)).counter == 2
        assert (await client.runs.get(await a_run(client, "after going back"))).counter == 3
        assert (await deployment.fsck()).code == 0
        listed = json.loads((await deployment.beside("epochs", "list", "-o", "json")).out)
        assert [(one["epoch"], one["current"]) for one in listed] == [(1, True), (2, False)]
        assert (await deployment.beside("epochs", "delete", "2")).code == 1
        assert (await deployment.beside("epochs", "delete", "2", "--yes")).code == 0


@pytest.mark.seconds(150)
async def test_while_an_instance_drains_it_is_refused_and_names_it(open_path: Path) -> None:
    """It may still append, so nothing is taken from under it; once it is parked, the same import succeeds."""
    gate = open_path / "gate"
    async with in_one_process(open_path, "--sandbox", "off") as deployment, deployment.client() as client:
        snapshot = await exported(deployment, open_path / "snapshot")
        waits = task("waits", f"while [ ! -e {gate} ]; do sleep 0.1; done")
        run = await client.runs.create(NewRun("/project/a/branch/main", "run", {"waits": waits}))
        await run_until(client, run.id, lambda run: only(run).steps[0].phase == "running")
        assert (await deployment.run("maintenance", "enable", "--service", "all")).code == 0
        (instance,) = (await until(client, lambda status: status.instances[0].state == "draining")).instances
        for refused in (
            await deployment.beside("import", str(snapshot)),
            await deployment.run("import", str(snapshot)),
            await deployment.beside("epochs", "activate", "1"),
        ):
            assert refused.code == 1
            assert "not every instance is parked" in refused.err
            assert f"{instance.id} (process {instance.pid}" in refused.err
            assert "is draining" in refused.err
            assert "maintenance enable --wait`" in refused.err.partition("wait for all with `")[2]
        listed = json.loads((await deployment.beside("epochs", "list", "-o", "json")).out)
        assert [one["epoch"] for one in listed] == [1]
        gate.touch()
        assert (await deployment.run("maintenance", "status", "--service", "all", "--wait")).code == 0
        done = await deployment.beside("import", str(snapshot))
        assert done.code == 0, done.err
        assert (await deployment.run("maintenance", "disable", "--service", "all", "--wait")).code == 0
        assert (await client.runs.page()).runs == ()
        assert (await deployment.fsck()).code == 0


@pytest.mark.seconds(180)
async def test_through_the_api_and_one_process_is_not_parked(open_path: Path) -> None:
    async with deployed(open_path, "--driver", "noop", executors=1) as deployment, deployment.client() as client:
        await a_run(client)
        snapshot = await exported(deployment, open_path / "snapshot")
        assert "not in maintenance mode" in (await deployment.run("import", str(snapshot))).err
        lost = deployment.processes["executor0"]
        pid = lost.pid
        await lost.kill()
        assert (await deployment.run("maintenance", "enable", "--service", "all")).code == 0
        status = await client.maintenance.status()
        while not any(one.pid == pid and one.state == "lost" for one in status.instances):
            status = await client.maintenance.status(unlike=status.tag)
        refused = await deployment.run("import", str(snapshot))
        assert refused.code == 1
        assert "not every instance is parked: executor" in refused.err
        await lost.start()
        assert (await deployment.run("maintenance", "status", "--service", "all", "--wait")).code == 0
        broken = open_path / "broken"
        broken.write_bytes(snapshot.read_bytes()[:-2000])
        assert "it ends" in (await deployment.run("import", str(broken))).err
        assert "it ends" in (await deployment.run("import", "--follow")).err
        done = await deployment.run("import", str(snapshot), "-o", "json")
        assert done.code == 0, done.err
        followed = await deployment.run("import", "--follow", "-o", "json")
        assert json.loads(followed.out) == json.loads(done.out)
        again = await deployment.run("export", "-o", str(open_path / "again"))
        assert again.code == 0, again.err
        assert compared(snapshot, open_path / "again").differences == []
        with open_snapshot(open_path / "again") as opened:
            assert opened.header.epoch == 2
        dry = await deployment.run("import", str(snapshot), "--dry-run")
        assert (dry.code, dry.err.count("was exported here before")) == (0, 1), dry.err
        assert (await deployment.run("maintenance", "disable", "--service", "all", "--wait")).code == 0
        assert (await client.runs.get(await a_run(client))).counter == 2
        assert (await deployment.fsck()).code == 0


@pytest.mark.seconds(120)
async def test_an_executor_of_an_imported_log_that_is_not_here_is_offline(open_path: Path) -> None:
    """It registered in the log that was imported; no lease of it was ever seen here."""
    log = MemoryLog()
    offer = executor_registered("group", active_tasks_limit=4)
    address = Address(0, "executor", "gone", "executor")
    await log.append(Head().next_commit(address, (offer,), time=CREATED, actor="test"))
    async with in_one_process(open_path, "--driver", "noop") as deployment, deployment.client() as client:
        await written(open_path / "snapshot", log)
        async with maintenance(deployment):
            done = await deployment.run("import", str(open_path / "snapshot"))
            assert done.code == 0, done.err
        own = only(await client.runs.get(await a_run(client))).executor_id
        listed = {executor.executor_id: executor for executor in await client.executors.list()}
        assert {name: executor.state for name, executor in listed.items()} == {own: "ready", "gone": "offline"}
        assert listed["gone"].last_seen == CREATED
        shown = (await deployment.run("executor", "list")).out.splitlines()
        assert any("gone" in line and "offline" in line for line in shown)
