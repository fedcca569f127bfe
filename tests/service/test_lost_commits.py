"""A service on a log whose streams have counted commits that they lack: everything answers, and says which."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest

from runstream.log.jetstream import open_log
from runstream.service.data_dir import FORMAT, MARKER
from runstream.subjects import partition_of
from tests.log.commits import created, run_address
from tests.log.losing import losing
from tests.log.servers import connected, own_server
from tests.service.running import a_run, runstream, serving
from tests.service.test_parked_commands import parked

PARTITIONS = 3


async def lose_the_first_commits(folder: Path) -> None:
    """Leave each stream as a full disk does: it ends at sequence 1, and begins with sequence 2."""
    async with (
        own_server(folder / "nats") as server,
        connected(server.url) as nc,
        await open_log(nc, "runstream", create=True, partitions=PARTITIONS) as log,
    ):
        for partition in range(PARTITIONS):
            async with losing(nc, log.subjects, partition) as stream:
                await log.append(created(run_address(partition)))
                await stream.lose_all_up_to(1)


async def listed(place: tuple[str, ...]) -> list[str]:
    """Return the positions of the parked commits."""
    _, out, _ = await runstream(*place, "parked", "list", "--output", "json")
    return [one["position"] for one in json.loads(out)]


async def stalled(http: httpx2.AsyncClient, count: int) -> list[dict[str, str]]:
    """Return the stalls once there are so many."""
    async with asyncio.timeout(20):
        while True:
            stalls: list[dict[str, str]] = (await http.get("/readyz")).json()["stalls"]
            if len(stalls) == count:
                return stalls


@pytest.mark.seconds(120)
async def test_nothing_waits_for_lost_commits_and_each_is_reported_until_it_is_skipped(open_path: Path) -> None:
    """Each command has a time limit (`tests.service.running.runstream`); before, most of them never ended."""
    (open_path / "data").mkdir()
    (open_path / "data" / MARKER).write_text(json.dumps({"format": FORMAT}))
    folder, snapshot = open_path / "data", str(open_path / "x.tar")
    place = ("--data-dir", str(folder))
    await lose_the_first_commits(folder)
    two = ("--partitions", str(PARTITIONS))
    async with serving(folder, *two) as service, httpx2.AsyncClient(base_url=service.url) as http:
        await a_run(folder)  # in one partition a commit is missing before others, in the others at the end
        positions = await listed(place)
        assert f"1/{partition_of('/user/admin', PARTITIONS)}/1" in positions
        stalls = await stalled(http, len(positions))
        assert [stall["position"] for stall in stalls] == positions
        assert all("is no longer in the log" in stall["why"] for stall in stalls)
        _, out, told = await runstream(*place, "fsck")
        assert out.count("is no longer in the log") == len(positions), told
        _, out, told = await runstream(*place, "doctor")
        for partition in range(PARTITIONS):
            assert f"position 1/{partition}/1 is no longer in the log" in out, told
        for words in (("export", "-o", snapshot), ("snapshot", "verify", snapshot)):
            code, _, told = await runstream(*place, *words)
            assert code == 0, told
        for position in positions:
            code, _, told = await runstream(*place, "parked", "skip", position, "--reason", "the disk was full")
            assert code == 0, told
        assert await parked(str(folder), 0) == []
        code, out, told = await runstream(*place, "fsck")
        assert code == 0, told
        assert "no longer in the log" not in out
        await stalled(http, 0)
