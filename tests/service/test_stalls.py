"""A stalled consumer is reported everywhere, with its position, the time, the reason, and what to do."""

from __future__ import annotations

import asyncio
import gc
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from runstream.api import Stall
from runstream.commits import Position
from runstream.embedded import PostgresServer
from runstream.jetstream.messaging import ConsumerProgress, NoAnswer, Questions
from runstream.service import stalls
from runstream.service.stalls import Backlog, Consumed, stall_of
from tests.domain.world import config, task
from tests.log.memory import MemoryLog
from tests.scheduler.standing import running, standing
from tests.servers import Servers
from tests.service.running import a_run, runstream, serving
from tests.service.test_parked_commands import parked

ONE = config(task("a"))
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "since", "why"),
    [
        (NoAnswer.NO_RESPONDERS, START, "no scheduler has it"),
        (NoAnswer.SILENT, START, "its scheduler does not answer"),
        (ConsumerProgress(START - timedelta(hours=1), "disk full"), START, "disk full"),
        (ConsumerProgress(START + timedelta(seconds=20), "disk full"), START + timedelta(seconds=20), "disk full"),
        (ConsumerProgress(START), START, "has not moved on"),
        (ConsumerProgress(START + timedelta(seconds=55)), None, ""),
    ],
)
def test_a_consumer_stands_still_when_commits_wait_and_it_does_not_move(
    said: ConsumerProgress | NoAnswer, since: datetime | None, why: str
) -> None:
    waiting = Backlog(Position(1, 3, 812), START, 7)
    stall = stall_of("projection", waiting, said, START + timedelta(seconds=60), 10.0)
    assert (stall.since if stall else None) == since
    if stall is not None:
        assert why in stall.why
        assert (stall.partition, stall.position, stall.commits) == (3, "1/3/812", 7)
        assert "runstream" in stall.todo or "process" in stall.todo


async def test_a_check_that_is_cancelled_leaves_no_work_that_never_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def rows(_consumed: Consumed) -> tuple[list[Stall], dict[int, int]]:
        return [], {}

    async def silent(_questions: Questions, _subject: str) -> ConsumerProgress | NoAnswer:
        asked.set()
        await asyncio.Event().wait()
        return NoAnswer.SILENT

    monkeypatch.setattr(Consumed, "_rows", rows)
    monkeypatch.setattr(stalls, "ask_progress", silent)
    unused: Any = object()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        checking = asyncio.create_task(Consumed(MemoryLog(), unused, unused, unused).stalls())
        await asked.wait()
        checking.cancel()
        await asyncio.wait({checking})
        gc.collect()
    assert [str(one.message) for one in found] == []


async def test_an_error_that_repeats_and_a_lost_owner_are_stalls(servers: Servers) -> None:
    async with standing(servers) as around:
        consumed = Consumed(around.log, around.database, Questions(around.nats))
        run = await around.create(ONE)
        partition = around.runs[run]
        later = datetime.now(UTC) + timedelta(seconds=60)
        assert await consumed.stalls() == []  # a moment is no standstill
        (stall,) = await consumed.stalls(later)
        assert (stall.component, stall.kind, stall.partition) == ("projection", "behind", partition)
        assert (stall.position, stall.commits) == (f"1/{partition}/1", 2)
        assert stall.why == "no scheduler has it"
        connection = await around.database.connect()
        try:
            await connection.execute(
                "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'no room for rows' USING ERRCODE = '53100'; END $$"
            )
            await connection.execute("CREATE TRIGGER broken BEFORE INSERT ON runs EXECUTE FUNCTION broken()")
            async with running(await around.scheduler()):
                async with asyncio.timeout(20):
                    while "no room for rows" not in (found := await consumed.stalls(later))[0].why:
                        continue  # each look asks the scheduler anew
                assert (found[0].kind, found[0].partition) == ("behind", partition)
                await connection.execute("DROP TRIGGER broken ON runs")
                async with asyncio.timeout(20):
                    while await consumed.stalls(later):
                        continue
        finally:
            await connection.close()


BREAK = """
CREATE FUNCTION runstream.broken() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'rows of runs are refused' USING ERRCODE = '22023'; END $$;
CREATE TRIGGER broken BEFORE INSERT ON runstream.runs EXECUTE FUNCTION runstream.broken();
"""


@pytest.mark.seconds(60)
async def test_parked_commits_are_said_in_five_places_until_they_are_tried_again(open_path: Path) -> None:
    data_dir, folder = str(open_path / "data"), open_path / "data"
    async with serving(folder) as service, httpx2.AsyncClient(base_url=service.url) as http:
        await a_run(folder)
        assert (await http.get("/readyz")).json()["stalls"] == []
        connection = await asyncpg.connect(PostgresServer(folder / "postgres").url)
        try:
            await connection.execute(BREAK)
            await runstream("--data-dir", data_dir, "run", "create", "--config", str(open_path / "config.yml"))
            (stall, *_) = await stalled(http, True)
            position, partition = stall["position"], stall["partition"]
            assert (stall["component"], stall["kind"]) == ("projection", "parked")
            assert stall["commits"] >= 1
            assert "rows of runs are refused" in stall["why"]
            assert datetime.now(UTC) - datetime.fromisoformat(stall["since"]) < timedelta(minutes=1)
            assert f"runstream parked show {position}" in stall["todo"]
            assert (await http.get("/readyz")).status_code == 200  # the others serve, and a restart would not help
            for words, code in (("doctor", 1), ("fsck", 0), ("status", 0)):
                status, out, told = await runstream("--data-dir", data_dir, words)
                assert status == code, (words, out, told)
                assert all(part in out for part in (position, "rows of runs are refused", "parked show")), out
            metrics = await measured(http)
            label = f'{{partition="{partition}",projection="runs"}}'
            assert metrics[f"runstream_parked_seconds{label}"] > 0
            assert metrics[f"runstream_parked_commits{label}"] >= 1
            assert metrics[f"runstream_projection_stalled_seconds{label}"] == 0

            await connection.execute("DROP TRIGGER broken ON runstream.runs")
            assert (await runstream("--data-dir", data_dir, "parked", "retry"))[0] == 0
            await parked(data_dir, 0)
        finally:
            await connection.close()
        await stalled(http, False)
        metrics = await measured(http)
        assert metrics[f"runstream_parked_seconds{label}"] == 0
        for words in ("doctor", "fsck", "status"):
            status, out, _ = await runstream("--data-dir", data_dir, words)
            assert "rows of runs are refused" not in out


async def stalled(http: httpx2.AsyncClient, some: bool) -> list[dict[str, Any]]:
    """Return the stalls once there are some, or none."""
    async with asyncio.timeout(30):
        while bool(found := (await http.get("/readyz")).json()["stalls"]) is not some:
            continue  # a look is answered for a second
    stalls: list[dict[str, Any]] = found
    return stalls


async def measured(http: httpx2.AsyncClient) -> dict[str, float]:
    lines = (await http.get("/metrics")).text.splitlines()
    return {name: float(value) for name, _, value in (one.rpartition(" ") for one in lines if one[:1] != "#")}
