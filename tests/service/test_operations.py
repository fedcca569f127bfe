"""Administrators see parked commits, check the rows against the log, and read the health of the servers over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runstream.api import FsckState
from runstream.client import Client, ClientError
from runstream.subjects import group_root, partition_of
from tests.service.running import a_run, serving
from tests.service.test_parked_commands import publish


async def ended(client: Client) -> FsckState:
    """Return the state of the check once it has ended."""
    async with asyncio.timeout(60):
        while (state := await client.checks.state()).progress is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.2)  # sleeps: a check has no event that ends it, its state is polled
    return state


@pytest.mark.seconds(120)
async def test_parked_commits_checks_and_health(open_path: Path) -> None:
    folder = open_path / "data"
    async with serving(folder), Client.local(folder) as client:
        run = await client.runs.get(await a_run(folder))
        with pytest.raises(ClientError, match="no check has run") as none:
            await client.checks.state()
        assert none.value.code == "noFsck"
        started = await client.checks.start()
        assert (started.name, started.result) == ("fsck", None)
        with pytest.raises(ClientError) as second:
            await client.checks.start()
        assert second.value.code == "fsckRuns"
        checked = (await ended(client)).result
        assert checked is not None
        assert (checked.count, checked.differences, checked.stalls) == (0, (), ())
        assert checked.commits >= 5
        assert checked.archive is not None
        with pytest.raises(ClientError) as partition:
            await client.checks.start(partitions=[99])
        assert partition.value.code == "invalidPartition"

        health = await client.health()
        statuses = {finding.what: finding.status for finding in health.findings}
        assert statuses["Postgres version"] == statuses["log readable"] == statuses["object storage"] == "ok"
        assert (await client.health()).at == health.at

        subject = f"runstream.runs.1.{partition_of(group_root(run.group), 4)}.run.{run.id}"
        await publish(folder, subject, b"\xff\0", b"moo")
        async with asyncio.timeout(30):
            while len((page := await client.parked.page()).parked) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # sleeps: the scheduler parks them a moment later
        first, last = page.parked
        assert (first.aggregate, page.more) == (f"run/{run.id}", False)
        behind = await client.parked.page(after=first.position, limit=1)
        assert (behind.parked, behind.more) == ((last,), False)
        assert (await client.parked.page(limit=1)).more
        detail = await client.parked.get(first.position)
        assert (detail.body.base64, detail.behind) == ("/wA=", (last.position,))
        assert await client.parked.retry() == 2
        assert await client.parked.retry([first.position]) == 1
        for position, reason, code in (
            (last.position, "x", "parkedBehind"),
            ("1/0/99999", "x", "commitNotParked"),
            (first.position, " ", "reasonMissing"),
        ):
            with pytest.raises(ClientError) as refused:
                await client.parked.skip(position, reason=reason)
            assert refused.value.code == code
        assert await client.parked.skip(first.position, reason="of no use")
        (skipped,) = await client.parked.skipped()
        assert (skipped.skipped, skipped.reason) == (first.position, "of no use")
        assert (await client.parked.get(first.position)).skipped == skipped
        assert (await client.parked.page("config")).parked == ()
