"""The rows of users and projects go on when the process that writes them is killed; their archive is checked, too."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest

from runstream.database import Database
from tests.acceptance.deployment import TOKEN, Deployment, Process, servers
from tests.configstore.test_component import written
from tests.log.servers import connected


async def _owner(processes: list[Process]) -> Process:
    """Wait until one of the processes writes the rows."""
    while True:
        for process in processes:
            if process.owned():
                return process
        await asyncio.sleep(0.05)  # sleeps: polls the records of the processes


async def _end(deployment: Deployment) -> int:
    """The last sequence of the config log."""
    async with connected(deployment.nats.url) as nats:
        return (await nats.jetstream().stream_info("runstream_config_1_0")).state.last_seq


async def _archived(deployment: Deployment, sequence: int) -> None:
    """Wait until the archive of the config log includes a sequence."""
    labels = 'partition="0",service="config"'
    wanted = f"runstream_archive_commits_total{{{labels}}} {sequence}"
    async with httpx2.AsyncClient(base_url=deployment.gateway.url) as http:
        while True:
            lines = (await http.get("/metrics", headers={"Authorization": f"token {TOKEN}"})).text.splitlines()
            if wanted in (line.removesuffix(".0") for line in lines):
                break
            await asyncio.sleep(0.2)  # sleeps: polls the metrics, which nobody announces
    assert any(line.startswith(f"runstream_archive_stalled_seconds{{{labels}}}") for line in lines)


@pytest.mark.seconds(120)
async def test_a_standby_takes_over_from_a_killed_process(open_path: Path) -> None:
    async with servers(open_path) as deployment:
        await deployment.process("gateway", "gateway,scheduler,datamanager").start()
        writers = [deployment.process(name, "configstore") for name in ("one", "two")]
        await asyncio.gather(*(writer.start() for writer in writers))
        async with deployment.client() as client, Database(deployment.postgres.url, "runstream") as database:
            owner = await _owner(writers)
            await client.users.create("ada")
            await written(database, await _end(deployment))
            await owner.kill()
            await client.users.create("bob")
            (standby,) = (one for one in writers if one is not owner)
            assert await _owner([standby]) is standby
            await written(database, await _end(deployment))
            end = await _end(deployment)
            await _archived(deployment, end)
            await owner.start()
            await client.users.create("eve")
            await written(database, await _end(deployment))

        checked = await deployment.beside("fsck", "-o", "json")
        found = json.loads(checked.out)
        assert (checked.code, found["count"], found["archive"]["config"]["count"]) == (0, 0, 0), checked
        assert found["archive"]["config"]["commits"] >= end
        segments = [path for path in (open_path / "objects").rglob("*.zst") if "config" in path.parts]
        segments[0].write_bytes(segments[0].read_bytes()[:-1])
        damaged = await deployment.beside("fsck")
        assert damaged.code == 1
        assert "archive of config: " in damaged.out
        assert segments[0].name in damaged.out
