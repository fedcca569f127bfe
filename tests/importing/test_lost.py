"""A log that has lost commits in its middle and at its end is rebuilt, followed, checked, exported and imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from benchmarks.generate import append

from runstream.commits import LogPosition, Position
from runstream.errors import ConflictError
from runstream.feed import EndLostError
from runstream.log.jetstream import JetStreamLog
from runstream.log.tail import scope_of_run, tail
from runstream.projections.rebuild import rebuild
from runstream.snapshots.export import export, plan
from runstream.snapshots.verify import verify
from tests.importing.test_parked import parked_ones
from tests.log.losing import LosingStream, losing
from tests.servers import Servers

from .rig import Rig, compared, rig, silent

PARTITIONS = 2
RUNS = 12
MIDDLE = (4, 5, 9)
LOST = [Position(1, partition, sequence) for partition in range(PARTITIONS) for sequence in MIDDLE]
MANY_SECONDS = 10
"""Far more than following takes; a follower that waits for a lost commit waits forever."""


@asynccontextmanager
async def filled(around: Rig, servers: Servers) -> AsyncIterator[tuple[JetStreamLog, list[LosingStream]]]:
    """Fill the log; yield it, and its streams, which lose commits."""
    async with around.log() as log, AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(losing(around.place.nats, log.subjects, partition))
            for partition in range(PARTITIONS)
        ]
        await append(servers.nats_url, log, RUNS)
        yield log, streams


async def lose(log: JetStreamLog, streams: Sequence[LosingStream], *, last: int) -> None:
    """Lose three commits in the middle of each partition, and the last ones."""
    for partition, stream in enumerate(streams):
        end = await log.end(partition)
        await stream.lose([*MIDDLE, *range(end - last + 1, end + 1)])
        assert await log.end(partition) == end - last


async def followed(around: Rig) -> list[Position]:
    """Follow the log from its start to its end; return the positions that cannot be read."""
    async with around.log() as log:
        scope, start = await scope_of_run(log, ""), LogPosition(log.epoch, (0,) * PARTITIONS)
        left = sum([await log.end(partition) for partition in range(PARTITIONS)])
        unread: list[Position] = []
        async with asyncio.timeout(MANY_SECONDS), tail(log, scope, start) as take:
            while left:
                messages = await take()
                left -= len(messages)
                unread += [one.raw.position for one in messages if one.error is not None]
        return sorted(unread)


def named(lost: Collection[Position], epoch: int) -> list[Position]:
    return sorted(Position(epoch, one.partition, one.sequence) for one in lost)


async def test_a_log_with_lost_commits_is_followed_rebuilt_exported_and_imported_with_their_positions(
    servers: Servers, tmp_path: Path
) -> None:
    async with rig(servers, PARTITIONS) as around:
        async with filled(around, servers) as (log, streams):
            await lose(log, streams, last=2)
        assert await followed(around) == named(LOST, 1)
        await around.rebuild()
        parked = await parked_ones(around)
        assert set(LOST) < set(parked), "and the commits that do not fit without them"
        assert await around.differences() == []
        first = await around.export(tmp_path / "first")
        report = verify(first)
        assert (report.problems, report.parked) == ([], len(parked))
        assert report.manifest is not None
        assert set(LOST) <= {Position(1, one.partition, one.sequence) for one in report.manifest.parked}
    async with rig(servers.beside("2"), PARTITIONS) as around:
        done = await around.run_import(first)
        assert (done.parked, done.parked_in_source) == (len(parked), len(parked))
        assert await parked_ones(around) == named(parked, 2)
        assert await around.differences() == []
        assert compared(first, await around.export(tmp_path / "second")).equal


@pytest.mark.parametrize("last", [0, 2])
async def test_commits_lost_after_their_rows_were_written_are_differences_until_a_rebuild(
    servers: Servers, tmp_path: Path, last: int
) -> None:
    async with rig(servers, PARTITIONS) as around:
        async with filled(around, servers) as (log, streams):
            await rebuild(servers.nats_url, log, around.database, silent)
            ends = [await log.end(partition) for partition in range(PARTITIONS)]
            await lose(log, streams, last=last)
        differences = await around.differences()
        if last:
            assert all(f"it ends at {end - last}" in line for end, line in zip(ends, differences, strict=True))
        else:
            assert differences != []
        with pytest.raises(ConflictError, match=r"position 1/./4 is no longer in the log") as caught:
            await around.export(tmp_path / "refused")
        assert caught.value.code == "lostNotParked"
        await around.rebuild()
        assert await around.differences() == []
        assert verify(await around.export(tmp_path / "snapshot")).problems == []


async def test_an_export_whose_last_commit_is_lost_meanwhile_says_so_and_the_next_one_succeeds(
    servers: Servers, tmp_path: Path
) -> None:
    async with rig(servers, PARTITIONS) as around:
        async with filled(around, servers) as (log, streams):
            planned = await plan(log, datetime.now(UTC))
            await streams[0].lose([planned.ends[0]])
            with pytest.raises(EndLostError, match=f"position {planned.ends[0]} of partition 0 was lost"):
                await export(log, ignored, planned)
        await around.rebuild()
        assert verify(await around.export(tmp_path / "snapshot")).problems == []


async def ignored(_: bytes) -> None:
    return
