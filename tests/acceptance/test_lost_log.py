"""NATS loses its whole store: at the next start the log is back, and what is missing is named; on disk and on S3."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from runstream.counting import counted
from runstream.datamanager.archive import Archive
from runstream.objects import ObjectStorage, PosixObjects
from runstream.subjects import Subjects
from tests.acceptance.deployment import Deployment, command, kill_server, servers
from tests.acceptance.load import Load
from tests.acceptance.story import Story, reading, reread
from tests.acceptance.test_imports import a_run
from tests.chaos.kills import Chaos, say
from tests.objects.backends import KEYS, open_at, s3_location
from tests.objects.reading import paths
from tests.service.running import a_run as run_of
from tests.service.running import runstream, serving

pytestmark = pytest.mark.seconds(240)

PROMISED_SECONDS = 5.0
"""Maximum age of the appends that a restore may lose, in seconds."""
BUSY_SECONDS = 10.0
"""Allowance for a busy machine, in seconds."""
PARTS = ("gateway", "scheduler", "executor", "datamanager")


@dataclass
class Objects:
    """Where objects are."""

    environment: dict[str, str]
    folder: Path | None
    """None for a bucket."""
    url: str = ""
    bucket: str = ""

    async def storage(self) -> ObjectStorage:
        if self.folder is not None:
            return PosixObjects(self.folder)
        return await open_at(s3_location(self.url, self.bucket))

    async def archive(self) -> Archive:
        return Archive(await self.storage(), Subjects("runstream", "runs", 1))

    async def delete(self, what: str) -> None:
        """Delete the objects of the archive that have this in their path."""
        storage = await self.storage()
        gone = [path for path in await paths(storage) if path.startswith("archive/") and what in path]
        assert gone
        for path in gone:
            await storage.delete(path)


@pytest.fixture(params=["posix", pytest.param("s3", marks=pytest.mark.again)])
def objects(request: pytest.FixtureRequest, open_path: Path, namespace: str) -> Objects:
    if request.param == "posix":
        folder = open_path / "objects"
        return Objects({"RUNSTREAM_OBJECTS_DIR": str(folder)}, folder)
    url = request.getfixturevalue("s3_url")
    place = f"s3://{namespace}/some/where?endpoint={url}&region=eu-central-1"
    keys = {"RUNSTREAM_OBJECTS_ACCESS_KEY": KEYS.access, "RUNSTREAM_OBJECTS_SECRET_KEY": KEYS.secret}
    return Objects({"RUNSTREAM_OBJECTS_URL": place, **keys}, None, url, namespace)


@asynccontextmanager
async def deployed(folder: Path, objects: Objects) -> AsyncIterator[Deployment]:
    """A process of each kind, started."""
    async with servers(folder, objects.environment) as deployment:
        for part in PARTS:
            deployment.process(part, part, "--driver", "noop", "--active-tasks-limit", "20")
        await start(deployment)
        yield deployment


async def start(deployment: Deployment) -> None:
    await asyncio.gather(*(process.start() for process in deployment.processes.values()))


async def lose_nats(deployment: Deployment) -> datetime:
    """Kill everything but the database at once and delete NATS's store; return the moment."""
    await asyncio.gather(*(process.kill() for process in deployment.processes.values()), kill_server(deployment.nats))
    moment = datetime.now(UTC)
    await asyncio.to_thread(shutil.rmtree, deployment.nats.folder / "store")
    await deployment.nats.start()
    return moment


def told(deployment: Deployment, action: str) -> list[dict[str, Any]]:
    return [record for process in deployment.processes.values() for record in process.records(action)]


async def test_killed_under_load_all_but_the_last_seconds_is_back(open_path: Path, objects: Objects) -> None:
    async with deployed(open_path, objects) as deployment:
        load = Load(deployment, 20_000, 20)
        archive = await objects.archive()
        async with reading(deployment.nats.url) as story:
            publishing = asyncio.create_task(load.publish(at_once=2, pause=0.1))
            while await written(archive) < 2:
                await more_of(story, 20)
            # Right after the data status was written little would be missing: a part of what is between two of them.
            between = len(story.commits) / await written(archive)
            await more_of(story, int(Chaos(5, 0).random.uniform(0.5, 1.0) * between))
            publishing.cancel()
            await asyncio.wait({publishing})
            moment = await lose_nats(deployment)
        ends = (await archive.status()).position.sequences
        seen = await projected(deployment)
        await start(deployment)
        now = await reread(deployment.nats.url)
        kept = {at: stored for at, stored in story.commits.items() if at.sequence <= ends[at.partition]}
        assert {at: now.commits[at].commit for at in kept} == {at: stored.commit for at, stored in kept.items()}
        restored, of_config = told(deployment, "log_restored")
        assert of_config["commits"] == 0
        assert (restored["level"], restored["commits"]) == ("warning", sum(ends))
        assert counted(sum(ends), "commit") in restored["event"]
        lost = {one["partition"]: (one["first"], one["last"]) for one in told(deployment, "commits_lost")}
        assert lost == {at: (ends[at] + 1, last) for at, last in seen.items() if last > ends[at]}
        missing = [stored.commit for at, stored in story.commits.items() if at not in kept]
        seconds = max(((moment - commit.time).total_seconds() for commit in missing), default=0.0)
        say(f"{len(missing)} of {len(story.commits)} commits are missing: the last {seconds:.2f} s; named: {lost}")
        assert seconds < PROMISED_SECONDS + BUSY_SECONDS
        await goes_on(deployment)


async def written(archive: Archive) -> int:
    """How often the data status was written."""
    found = await archive.find_status()
    return found.serial if found is not None else 0


async def more_of(story: Story, commits: int) -> None:
    """Wait for this many more commits."""
    seen = len(story.commits)
    await story.until(lambda: len(story.commits) >= seen + commits)


async def projected(deployment: Deployment) -> dict[int, int]:
    """Return each partition's checkpoint."""
    connection = await asyncpg.connect(deployment.postgres.url)
    try:
        found = await connection.fetch("SELECT partition, sequence FROM runstream.checkpoints")
        return {row["partition"]: row["sequence"] for row in found}
    finally:
        await connection.close()


async def goes_on(deployment: Deployment) -> None:
    """Check that old and new runs end after the restore, and that log, archive and rows agree."""
    async with deployment.client() as client:
        await a_run(client)
    async with reading(deployment.nats.url) as story:
        await story.until(lambda: bool(story.groups) and story.archived == set(story.groups))
    done = await deployment.fsck()
    assert done.code == 0, done


async def test_without_data_status_it_does_not_start(open_path: Path, objects: Objects) -> None:
    async with deployed(open_path, objects) as deployment:
        assert not told(deployment, "log_restored")  # a really new one begins empty
        async with deployment.client() as client:
            assert (await client.runs.page()).runs == ()
            await a_run(client)
        archive = await objects.archive()
        while (await archive.find_status()) is None or not (await archive.status()).commits:
            await archive.anything()
        await lose_nats(deployment)
        await objects.delete("status-")
        for left in ("only segments that no data status names", ""):
            for part in ("gateway", "scheduler", "datamanager"):
                words = ("--data-dir", str(open_path / part), "serve", "--components", part)
                refused = await command(*words, *deployment.servers, objects=objects.environment)
                assert refused.code == 1
                assert "the database knows that there was one; there is no data status in archive/" in refused.err
                assert "drop schema 'runstream' of the database" in refused.err
                assert ("move archive/runstream/runs/1/ away" in refused.err) == bool(left)
                assert left in refused.err
                assert "Traceback" not in refused.err
            if left:
                await objects.delete("")
        await drop_schema(deployment)
        await start(deployment)
        async with deployment.client() as client:
            assert (await client.runs.page()).runs == ()
        await goes_on(deployment)


async def drop_schema(deployment: Deployment) -> None:
    """Drop the schema, as the error's hint says."""
    connection = await asyncpg.connect(deployment.postgres.url)
    try:
        await connection.execute("DROP SCHEMA runstream CASCADE")
    finally:
        await connection.close()


async def test_a_stopped_service_with_servers_of_its_own_loses_nothing(open_path: Path, objects: Objects) -> None:
    data_dir = open_path / "data"
    async with serving(data_dir, **objects.environment) as service:
        runs = [await run_of(data_dir) for _ in range(3)]
        service.process.terminate()
        assert await service.ended() == 0
    shutil.rmtree(data_dir / "nats" / "store")
    async with serving(data_dir, **objects.environment) as service:
        assert "no difference" in await checked(data_dir, objects)
        runs.append(await run_of(data_dir))
        code, out, _ = await runstream("--data-dir", str(data_dir), "run", "list", "--output", "json")
        assert code == 0
        assert all(run in out for run in runs)
        assert "no difference" in await checked(data_dir, objects)
        service.process.terminate()
        assert await service.ended() == 0
    shutil.rmtree(data_dir / "nats" / "store")
    await objects.delete("status-")
    code, _, err = await runstream("--data-dir", str(data_dir), "serve", **objects.environment)
    assert code == 1
    assert "there is no data status" in err
    assert "Traceback" not in err


async def checked(data_dir: Path, objects: Objects) -> str:
    code, out, err = await runstream("--data-dir", str(data_dir), "fsck", **objects.environment)
    assert code == 0, out + err
    return out


async def test_every_process_ends_when_the_log_is_lost(open_path: Path, objects: Objects) -> None:
    """NATS alone is killed and loses all: every process ends and says so; started again, they have the log."""
    async with deployed(open_path, objects) as deployment:
        async with deployment.client() as client:
            run = await a_run(client)
        archive = await objects.archive()
        while (await archive.find_status()) is None or not (await archive.status()).commits:
            await archive.anything()
        await kill_server(deployment.nats)
        await asyncio.to_thread(shutil.rmtree, deployment.nats.folder / "store")
        await deployment.nats.start()
        assert await asyncio.gather(*(process.ended() for process in deployment.processes.values())) == [1] * len(PARTS)
        for process in deployment.processes.values():
            words = [line for line in process.stderr.read_text().splitlines() if not line.startswith("{")]
            assert words[0].startswith("error: the "), words
            assert "has ended: " in words[0]
            assert "Traceback" not in words
            say(words[0])
        await start(deployment)
        assert told(deployment, "log_restored")
        async with deployment.client() as client:
            assert (await client.runs.get(run)).id == run
        await goes_on(deployment)
