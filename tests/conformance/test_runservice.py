"""runservice_test.json: the runs of a group page by page, and some checks of the whole service, on real servers.

Two answers differ on purpose. A sequence of ours follows the time of creation, so it is the order that is compared, and
counters where a sequence is expected. "TestLogleaner" is left out: nothing is deleted by its age alone, since runs
share logs; what no run refers to any more goes (tests/objects/test_references.py).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvloop

from runstream.database import Database
from runstream.database.run_lists import MAX_LIMIT, RunQuery, list_runs
from runstream.events.event import DomainEvent
from runstream.events.run import RunFinished, RunResultSet, RunStarted
from runstream.gateway.requests import CreateRunBody
from runstream.gateway.runs.create import CreatedRun, RunCreation
from runstream.gateway.runs.prepare import prepare_run
from runstream.log.port import Log
from runstream.projections.store import ProjectionStore, load_partition
from runstream.run_states import RunPhase, RunResult
from runstream.subjects import Address
from tests.conftest import drop_schema
from tests.domain.world import World, config
from tests.importing.rig import rig
from tests.projections.playing import migrated, project
from tests.scheduler.standing import running, standing
from tests.servers import Servers

from .cases import FOLDER, cases

LISTING = "TestGetGroupRuns"
GROUPS = ("/user/user01/branch01", "/user/user01/branch02")


def ten_runs() -> World:
    """The fixture of the cases: in two groups in turn, every second of three a success and every third a failure."""
    world = World(Random(0))  # noqa: S311
    for number in range(10):
        run = world.create(config(), GROUPS[number % 2])
        result = {1: RunResult.SUCCESS, 2: RunResult.FAILED}.get(number % 3)
        events: tuple[DomainEvent, ...] = (RunStarted(), RunResultSet(result), RunFinished()) if result else ()
        if events:
            head = world.truth.runs[run].head
            assert world.append(head.next_commit(Address(0, "run", run), events, time=world.now(), actor="scheduler"))
    return world


def twice_ten_runs() -> World:
    world = World(Random(0))  # noqa: S311
    for number in range(20):
        world.create(config(), f"/user/user0{number // 10 + 1}")
    return world


async def _project(url: str, schema: str, world: World) -> None:
    async with migrated(url, schema) as database:
        await project(ProjectionStore(database), await load_partition(database, 0, 1), world.log)


@pytest.fixture(scope="module")
def listed(database_url: str) -> Iterator[str]:
    """The schema that has the ten runs."""
    schema = f"test_{secrets.token_hex(6)}"
    uvloop.run(_project(database_url, schema, ten_runs()))
    yield schema
    uvloop.run(drop_schema(database_url, schema))


def _of(test: str) -> pytest.MarkDecorator:
    """The cases of one test of the file."""
    mark = cases("runservice_test.json")
    chosen = [one for one in mark.args[1] if one.id == "absent" or one.values[0]["test"] == test]
    return pytest.mark.parametrize("case", chosen)


def _request(case: dict[str, Any], start: int) -> RunQuery:
    request = case["request"]
    return RunQuery(
        groups=(request["group"],),
        phases=tuple(map(RunPhase, request["phase_filter"])),
        results=tuple(map(RunResult, request["result_filter"])),
        start_counter=start,
        limit=request["limit"] or MAX_LIMIT,
        ascending=request["sort_direction"] == "asc",
    )


@_of(LISTING)
async def test_get_group_runs(case: dict[str, Any], database_url: str, listed: str) -> None:
    async with migrated(database_url, listed) as database:
        for expected in case["expect"]["pages"]:
            async with database.snapshot() as transaction:
                page = await list_runs(transaction, _request(case, expected["start_run_counter"]))
            assert [run.counter for run in page.runs] == expected["counters"]
            assert (page.next_start is not None) == expected["has_more"]


@_of("TestGetRunsLastRun")
async def test_last_run(case: dict[str, Any], database_url: str, database_schema: str) -> None:
    *_, asked = case["ops"]
    await _project(database_url, database_schema, twice_ten_runs())
    async with migrated(database_url, database_schema) as database, database.snapshot() as transaction:
        page = await list_runs(transaction, RunQuery(groups=asked["groups"], last_run=True))
    in_order = [(run.group, (20 if run.group == "/user/user02" else 10)) for run in page.runs if run.counter == 10]
    assert in_order == [(run["group"], run["sequence"]) for run in case["expect"]["runs"]]


async def _create(log: Log, request: dict[str, Any], times: int) -> list[CreatedRun]:
    creation = RunCreation(log, lambda: datetime.now(UTC))
    new = prepare_run(CreateRunBody(group=request["group"], name="run", run_config_tasks={}))
    return list(await asyncio.gather(*(creation.create(new) for _ in range(times))))


@_of("TestConcurrentRunCreation")
async def test_concurrent_creation(case: dict[str, Any], servers: Servers) -> None:
    (op,) = case["ops"]
    async with standing(servers) as around:
        created = await _create(around.log, op["request"], op["concurrent"])
        partition = created[0].position.partition
        async with running(await around.scheduler()):
            ids = {one.run.id for one in created}
            fold = await around.folded_until(
                partition, lambda fold: all(i in fold.runs and fold.runs[i].state.archived for i in ids)
            )
    assert len(ids) == case["expect"]["runs"]
    in_order = sorted((fold.runs[run].state for run in ids), key=lambda run: run.sequence)
    assert [run.counter for run in in_order] == list(range(1, len(ids) + 1))


@_of("TestExportImport")
async def test_export_import(case: dict[str, Any], servers: Servers, tmp_path: Path) -> None:
    creating = case["ops"][0]
    async with rig(servers) as around:
        async with around.log() as log:
            created = await _create(log, creating["request"], creating["times"])
        await around.rebuild()
        before = await _all_runs(around.database)
        assert len(before) == case["expect"]["runs_before"] == len(created)
        await around.run_import(await around.export(tmp_path / "snapshot"))
        assert await _all_runs(around.database) == before


async def _all_runs(database: Database) -> list[str]:
    async with database.snapshot() as transaction:
        return [run.id for run in (await list_runs(transaction, RunQuery(limit=MAX_LIMIT))).runs]


def test_every_case_is_run_or_left_out_by_name() -> None:
    if not (FOLDER / "runservice_test.json").is_file():
        pytest.skip("the conformance cases are absent")
    run = {LISTING, "TestGetRunsLastRun", "TestConcurrentRunCreation", "TestExportImport"}
    found = {case.values[0]["test"] for case in cases("runservice_test.json").args[1]}
    assert found == run | {"TestLogleaner"}
