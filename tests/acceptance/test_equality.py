"""A snapshot exported under load and imported elsewhere equals the source at those positions, row by row."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from runstream.commits import LogPosition
from runstream.projections.rebuild_schema import EXCHANGED, SHARED
from runstream.snapshots.compare import compare
from runstream.snapshots.reading import open_snapshot
from tests.acceptance.deployment import Deployment, deployed, in_one_process
from tests.acceptance.load import Load
from tests.acceptance.story import reading
from tests.acceptance.test_imports import a_run, compared, maintenance
from tests.chaos.kills import say
from tests.log.servers import connected

EXPORTS = 2
"""Through the API, and from the log itself."""
RUNS = 20_000
"""More than are published: that ends when all exports are made. Runs go on for long after that."""


@dataclass
class Exports:
    """Exports of a deployment, one after the other, while its log grows."""

    deployment: Deployment
    paths: list[Path] = field(default_factory=list)
    seconds: float = 0.0
    appended: int = 0
    """Commits that were appended while exports were made."""

    async def make(self, *, by_api: bool) -> None:
        path = self.deployment.folder / f"snapshot{len(self.paths)}"
        before, began = await ends(self.deployment), asyncio.get_running_loop().time()
        words = ("export", "-o", str(path))
        done = await (self.deployment.run(*words) if by_api else self.deployment.beside(*words))
        assert done.code == 0, done.err
        after, position = await ends(self.deployment), position_of(path)
        self.seconds += asyncio.get_running_loop().time() - began
        self.appended += sum(after) - sum(before)
        assert all(one <= at <= other for one, at, other in zip(before, position.sequences, after, strict=True))
        assert sum(after) > sum(position.sequences)
        self.paths.append(path)


async def ends(deployment: Deployment) -> tuple[int, ...]:
    """The last sequence of each partition."""
    async with connected(deployment.nats.url) as nats:
        names = [f"runstream_runs_1_{partition}" for partition in range(4)]
        return tuple([(await nats.jetstream().stream_info(name)).state.last_seq for name in names])


def position_of(path: Path) -> LogPosition:
    with open_snapshot(path) as opened:
        return LogPosition(opened.header.epoch, opened.manifest.positions)


@contextlib.asynccontextmanager
async def loaded(deployment: Deployment) -> AsyncIterator[Load]:
    """Runs are published by many at once for as long as the block lasts."""
    load = Load(deployment, RUNS, 40)
    publishing = asyncio.create_task(load.publish(at_once=4, pause=0.05))
    await load.until(lambda: len(load.accepted) > 100)
    yield load
    assert not publishing.done()
    publishing.cancel()
    await asyncio.wait({publishing})
    assert load.failed == []


async def rows(url: str, schema: str) -> dict[str, list[str]]:
    """Every row of every table of a projection, as text, in order; without the epoch, which an import gives anew.

    And without the checkpoint of the configuration, which has no commits.
    """
    connection = await asyncpg.connect(url)
    try:
        found = {}
        for table in (*EXCHANGED, *SHARED):
            columns = await connection.fetch(
                "SELECT quote_ident(column_name) AS name FROM information_schema.columns "
                "WHERE table_schema = $1 AND table_name = $2 AND column_name <> 'epoch' ORDER BY column_name",
                *(schema, table),
            )
            listed = ", ".join(column["name"] for column in columns)
            of_runs = "WHERE projection = 'runs'" if table == "checkpoints" else ""
            statement = f'SELECT ROW({listed})::text AS row FROM "{schema}"."{table}" {of_runs} ORDER BY 1'  # noqa: S608
            found[table] = [record["row"] for record in await connection.fetch(statement)]
        return found
    finally:
        await connection.close()


async def past_of(source: Deployment, position: LogPosition) -> dict[str, list[str]]:
    """The source's rows as of a position, made from its own log while it goes on."""
    done = await source.beside("rebuild", "--at", str(position), "--into", "past")
    assert done.code == 0, done.err
    done = await source.beside("fsck", "--database-schema", "past", "--no-archive")
    assert done.code == 0, done.out
    return await rows(source.postgres.url, "past")


@pytest.mark.seconds(300)
async def test_exported_under_load_and_imported_elsewhere(open_path: Path) -> None:
    source, target = open_path / "source", open_path / "target"
    source.mkdir()
    target.mkdir()
    noop = ("--driver", "noop", "--active-tasks-limit", "50")
    async with deployed(source, *noop, executors=2) as here, in_one_process(target, *noop) as there:
        async with loaded(here):
            exports = Exports(here)
            for number in range(EXPORTS):
                await exports.make(by_api=number % 2 == 0)
        snapshot = exports.paths[-1]
        position = position_of(snapshot)
        expected = await past_of(here, position)
        behind = sum(await ends(here)) - sum(position.sequences)
        rate = exports.appended / exports.seconds
        say(f"{EXPORTS} exports in {exports.seconds:.1f} s at {rate:.0f} commits/s; the last is of {position}")
        for earlier, later in zip(exports.paths, exports.paths[1:], strict=False):
            assert begins(later, earlier)
        async with maintenance(there):
            done = await there.beside("import", str(snapshot))
            assert done.code == 0, done.err
            done = await there.fsck()
            assert done.code == 0, done.out
            found = await rows(there.postgres.url, "runstream")
            for table, its_rows in expected.items():
                assert found[table] == its_rows, table
            again = await there.beside("export", "-o", str(open_path / "again"))
            assert again.code == 0, again.err
            assert compared(snapshot, open_path / "again").differences == []
        sizes = {table: len(its_rows) for table, its_rows in expected.items()}
        say(f"equal: {sizes}; the source was {behind} commits further by then")
        assert sizes["runs"] > 100
        await they_end(there)
        async with there.client() as client:
            await a_run(client)
        for deployment in (here, there):
            assert (await rows(deployment.postgres.url, "runstream"))["parked"] == []
        done = await there.fsck()
        assert done.code == 0, done.out


def begins(whole: Path, begin: Path) -> bool:
    """Return True if a snapshot is a prefix of another."""
    with open_snapshot(whole) as one, open_snapshot(begin) as other:
        found = compare(one, other)
        return found.only == (one.manifest.commits - other.manifest.commits, 0)


async def they_end(there: Deployment) -> None:
    """Runs that were under way at the source end here: their executors are not here, and are given up."""
    async with reading(there.nats.url) as story:
        await story.until(lambda: bool(story.groups) and story.archived == set(story.groups))
