"""Lists of runs: pages and counts are what a filter of all runs gives, and every filter has an index."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import pytest
from sqlalchemy import text

from runstream.api import RunSummary
from runstream.database import Database, Transaction
from runstream.database.run_lists import IN_ORDER, MANY_ROOTS, Listing, RunPage, RunQuery, list_runs
from runstream.domain.run import RunState
from runstream.run_states import RunPhase, RunResult
from runstream.tables import RunRow
from tests.domain.test_world import play
from tests.domain.world import World, config, random_config

from .playing import played
from .test_runs import in_group, projected

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FIRST_ID = "01234567-89ab-4cde-8f01-23456789abcd"
"""Begins as the commit does, with digits alone, as a number."""
SECOND_ID = "01234567-89ab-4cde-9f01-23456789abcd"
GROUPS: Sequence[tuple[str, ...]] = (
    (),
    ("/project",),
    ("/project/p",),
    ("/project/p/",),
    ("/project/p%",),
    ("/project/p_",),
    ("/project/p/branch",),
    ("/project/p/branch/main",),
    ("/project/p/branch/mai",),
    ("/project/p/branch/main/x",),
    ("/user/q", "/project/p", "/project/p/branch/main"),
    ("/project/p/branch/main", "/project/pp/branch", "/project/q"),
)
STATES: Sequence[tuple[tuple[RunPhase, ...], tuple[RunResult, ...]]] = (
    ((), ()),
    ((RunPhase.FINISHED, RunPhase.QUEUED), ()),
    ((RunPhase.RUNNING,), ()),
    ((), (RunResult.FAILED,)),
    ((RunPhase.FINISHED,), (RunResult.SUCCESS,)),
)
OTHERS: Sequence[dict[str, Any]] = (
    {},
    {"name": "run"},
    {"name": "none"},
    {"text": "OTHER"},
    {"text": "main"},
    {"text": "100%"},
    {"text": 'say "hi"\\'},
    {"text": "message"},
    {"text": "#1"},
    {"text": "2"},
    {"text": COMMIT[:7].upper()},
    {"text": COMMIT[:20]},
    {"text": COMMIT[:20] + "e"},
    {"text": "1234567"},
    {"text": FIRST_ID[:7]},
    {"text": FIRST_ID[:8].upper()},
    {"text": FIRST_ID[:20]},
    {"text": FIRST_ID},
    {"text": FIRST_ID[:12]},
    {"text": SECOND_ID[:25]},
    {"waiting_approval": True},
    {"waiting_approval": True, "name": "run", "text": "MAIN"},
)


@pytest.fixture(scope="module")
def world() -> World:
    """Runs in groups that are easily taken for one another, some with annotations."""
    made = played(4)
    for group in ("/project/p%/branch/main", "/project/p_/x", "/project/pp/branch/main", "/project/p/branch/main/x"):
        made.create(random_config(made.random), group)
    for number, message in enumerate(("Reach 100% of it", 'They say "hi"\\ twice', "MESSAGE", "zebra", "a\nb")):
        notes = {"message": message, "commit_sha": COMMIT[: 40 - number] + "f" * number}
        made.create(random_config(made.random), "/project/p/branch/main", notes)
    made.create(config(), "/project/p", {"commit_sha": "1234567" + "0" * 33, "other": "x" * 5000})
    made.create(config(), "/project/p", {"commit_sha": COMMIT}, run_id=FIRST_ID)
    made.create(config(), "/project/q", run_id=SECOND_ID)
    play(made, made.random, 80)
    return made


def matching(world: World, query: RunQuery) -> list[RunState]:
    """Return the runs that a query finds, from all runs."""
    groups = [group.rstrip("/") for group in query.groups]
    found = [
        run
        for run in sorted((one.state for one in world.truth.runs.values()), key=lambda one: one.sequence)
        if (not groups or in_group(*groups)(run))
        and (not query.phases or run.phase in query.phases)
        and (not query.results or run.result in query.results)
        and query.name in ("", run.name)
        and (not query.text or _has_text(run, query.text))
        and (not query.waiting_approval or any(task.waiting_approval for task in run.tasks.values()))
    ]
    if query.last_run:
        found = sorted({run.group: run for run in found}.values(), key=lambda one: one.sequence)
    return found if query.ascending else found[::-1]


def _has_text(run: RunState, wanted: str) -> bool:
    number = wanted.removeprefix("#")
    commit = len(wanted) >= 7 and {*wanted.lower()} <= {*"0123456789abcdef"}
    of_id = bool(re.fullmatch(r"[0-9a-f]{7,8}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f][0-9a-f-]*", wanted.lower()))
    if number.isdigit() or commit or of_id:
        sha = run.annotations.get("commit_sha", "")
        return (
            (number.isdigit() and run.numbered and run.counter == int(number))
            or (commit and sha.startswith(wanted.lower()))
            or (of_id and run.id.startswith(wanted.lower()))
        )
    return any(wanted.lower() in one.lower() for one in (run.name, run.group, *run.annotations.values()))


async def all_pages(transaction: Transaction, query: RunQuery) -> list[RunSummary]:
    """Return the runs of all pages."""
    page = RunPage(next_start=query.start)
    listed: list[RunSummary] = []
    while page.next_start is not None:
        page = await list_runs(transaction, replace(query, start=page.next_start))
        assert len(page.runs) <= query.limit
        listed += page.runs
    return listed


@pytest.mark.parametrize("scanned", [3, 1000])
async def test_pages_and_counts_are_what_a_filter_of_all_runs_gives(
    world: World, scanned: int, monkeypatch: pytest.MonkeyPatch, database_url: str, database_schema: str
) -> None:
    """However few runs a request may read."""
    monkeypatch.setattr("runstream.database.run_lists.SCANNED", scanned)
    monkeypatch.setattr("runstream.database.run_lists._MIN_SCANNED", 2)
    queries = [
        RunQuery(groups=groups, phases=phases, results=results, **other, last_run=last, ascending=ascending, limit=3)
        for groups, (phases, results), other, last, ascending in product(
            GROUPS, STATES, OTHERS, (False, True), (False, True)
        )
    ]
    chosen = Random(scanned).sample(queries, 120)  # noqa: S311
    found = 0
    async with (
        projected(database_url, database_schema, world) as database,
        database.snapshot(timeout=60) as transaction,
    ):
        for query in chosen:
            wanted = matching(world, query)
            assert [one.id for one in await all_pages(transaction, query)] == [run.id for run in wanted], query
            page = await list_runs(transaction, query, counts=True)
            assert page.counts is not None
            every = matching(world, replace(query, phases=(), results=()))
            for counts, words in (
                (page.counts.phases, Counter(run.phase.value for run in every)),
                (page.counts.results, Counter(run.result.value for run in every)),
            ):
                assert {word: one.count for word, one in counts.items() if one.count} == words, query
            found += len(wanted)
    assert found > 80


async def test_lists_of_many_roots_are_those_of_the_roots_that_have_runs(
    world: World, database_url: str, database_schema: str
) -> None:
    empty = tuple(f"/project/none-{number}" for number in range(MANY_ROOTS * 30))
    async with (
        projected(database_url, database_schema, world) as database,
        database.snapshot(timeout=60) as transaction,
    ):
        for groups, ascending in product((("/project/p", "/user/q", "/project/pp", *empty), empty), (False, True)):
            for other in ({}, {"phases": (RunPhase.FINISHED,)}, {"text": "main"}):
                query = RunQuery(groups=groups, ascending=ascending, limit=2, **other)
                wanted = [run.id for run in matching(world, query)]
                assert [one.id for one in await all_pages(transaction, query)] == wanted, (groups[:3], other)
                assert other or (len(wanted) > 2) == (groups is not empty)
        counted = (await list_runs(transaction, RunQuery(groups=("/project/p", *empty)), counts=True)).counts
        few = (await list_runs(transaction, RunQuery(groups=("/project/p",)), counts=True)).counts
        assert counted == few


async def test_counting_stops_at_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch, database_url: str, database_schema: str
) -> None:
    monkeypatch.setattr("runstream.database.run_lists.MAX_COUNT", 2)
    monkeypatch.setattr("runstream.database.run_lists._COUNT_SCANNED", 2)
    async with projected(database_url, database_schema, world) as database, database.snapshot() as transaction:
        for query in (RunQuery(), RunQuery(groups=("/project/p", "/user/q")), RunQuery(text="main")):
            page = await list_runs(transaction, query, counts=True)
            assert page.counts is not None
            numbers = Counter(run.phase.value for run in matching(world, query))
            for phase, counted in page.counts.phases.items():
                assert counted.count <= min(numbers[phase], 2)
                assert counted.more or counted.count == numbers[phase]


async def test_the_tasks_of_the_runs_on_a_page_are_counted_by_status(
    world: World, database_url: str, database_schema: str
) -> None:
    async with projected(database_url, database_schema, world) as database, database.snapshot() as transaction:
        page = await list_runs(transaction, RunQuery(limit=40), tasks=True)
        runs = {run.id: run for run in matching(world, RunQuery(limit=40))}
        wanted = {one.id: Counter(task.status.value for task in runs[one.id].tasks.values()) for one in page.runs}
        assert page.tasks == wanted
        assert sum(map(len, wanted.values())) > 5
        assert (await list_runs(transaction, RunQuery())).tasks is None
        empty = await list_runs(transaction, RunQuery(name="no such run"), tasks=True)
        assert empty.tasks == {}


@asynccontextmanager
async def large(url: str, schema: str, world: World) -> AsyncIterator[Database]:
    """Many rows, so that the planner sees a point in indexes: copies of the world's runs in many projects."""
    columns = RunRow._fields
    listed = ", ".join(f'"{name}"' for name in columns)
    other = {
        "id": "id || '-' || n",
        "counter_group": "'/project/copy' || n % 50",
        "group": "'/project/copy' || n % 50 || '/branch/' || n % 7",
        "name": "name || n % 40",
        "sequence": "sequence + n * 1000000",
        "phase": "CASE WHEN n % 100 = 0 THEN phase ELSE 'finished' END",
        "result": "CASE WHEN n % 100 = 0 THEN result ELSE 'success' END",
    }
    values = ", ".join(other.get(name, f'"{name}"') for name in columns)
    async with projected(url, schema, world) as database:

        async def copy(transaction: Transaction) -> None:
            statement = f"INSERT INTO runs ({listed}) SELECT {values} FROM runs, generate_series(1, 500) AS n"  # noqa: S608
            await transaction.execute(text(statement))
            counters = "SELECT partition, '/project/copy' || n, last FROM counters, generate_series(0, 49) AS n"
            await transaction.execute(text(f"INSERT INTO counters {counters} WHERE root = '/project/p'"))
            await transaction.execute(text("ANALYZE runs, run_tasks, counters"))

        await database.transaction(copy)
        yield database


async def test_every_filter_reads_an_index(world: World, database_url: str, database_schema: str) -> None:
    root, branch = ("/project/copy7",), ("/project/copy7/branch/3",)
    roots, active = tuple(f"/project/copy{number}" for number in range(40)), (RunPhase.RUNNING, RunPhase.QUEUED)
    failed, finished = (RunResult.FAILED,), (RunPhase.FINISHED,)
    async with large(database_url, database_schema, world) as database, database.snapshot() as transaction:
        await transaction.execute(IN_ORDER)
        for query, *indexes in (
            (RunQuery(), "runs_by_sequence"),
            (RunQuery(groups=root), "runs_by_root"),
            (RunQuery(groups=branch), "runs_by_group"),
            (RunQuery(phases=(RunPhase.RUNNING,)), "runs_by_state"),
            (RunQuery(phases=(RunPhase.QUEUED, RunPhase.SETUP_ERROR)), "runs_by_state"),
            (RunQuery(results=failed), "runs_by_state"),
            (RunQuery(phases=finished), "runs_by_state", "runs_by_sequence"),
            (RunQuery(groups=root, results=failed), "runs_by_root_and_state"),
            (RunQuery(groups=root, phases=finished), "runs_by_root_and_state", "runs_by_root"),
            (RunQuery(groups=branch, results=failed), "runs_by_group_and_state"),
            (RunQuery(groups=branch, phases=finished), "runs_by_group_and_state", "runs_by_group"),
            (RunQuery(name="run7"), "runs_by_name"),
            (RunQuery(text="#12"), "runs_by_counter"),
            (RunQuery(text=COMMIT), "runs_by_commit"),
            (RunQuery(text=FIRST_ID), "runs_pkey"),
            (RunQuery(text="zebra"), "runs_by_sequence"),
            (RunQuery(text="zebra", groups=root), "runs_by_root"),
            (RunQuery(waiting_approval=True), "run_tasks_waiting"),
            (RunQuery(last_run=True), "runs_by_sequence", "runs_by_group"),
            (RunQuery(last_run=True, groups=root), "runs_by_root", "runs_by_group"),
            (RunQuery(last_run=True, results=failed), "runs_by_state", "runs_by_group_and_state"),
            (RunQuery(last_run=True, groups=roots, phases=active), "runs_by_root_and_state", "runs_by_group_and_state"),
        ):
            listing = Listing(query)
            for statement, values in ((listing.page(), listing.values), listing.counts()):
                plan = str(await transaction.rows(text(f"EXPLAIN {statement}"), values))
                assert "Seq Scan on runs" not in plan, (query, plan)
            plan = str(await transaction.rows(text(f"EXPLAIN {listing.page()}"), listing.values))
            for index in indexes:
                assert f"using {index} on" in plan or f"on {index} " in plan, (query, index, plan)


PAGE_STATES: Sequence[dict[str, Any]] = (
    {},
    {"phases": (RunPhase.RUNNING,)},
    {"phases": (RunPhase.QUEUED,)},
    {"phases": (RunPhase.CANCELLED,)},
    {"phases": (RunPhase.SETUP_ERROR,)},
    {"results": (RunResult.FAILED,)},
    {"results": (RunResult.SUCCESS,)},
    {"results": (RunResult.STOPPED,)},
    {"waiting_approval": True},
)
"""The states among which a reader of the page chooses."""
PAGE_GROUPS: Sequence[tuple[str, ...]] = (
    (),
    ("/project/copy7",),
    ("/project/copy7/branch/3",),
    tuple(f"/project/copy{number}" for number in range(40)),
)
IN_ORDER_OF = {"runs_by_sequence", "run_tasks_waiting"}
"""Indexes that a list may read from their end without a condition: it stops after a bounded number of runs."""
OF_FEW = {"runs_by_counter", "runs_by_commit", "runs_pkey"}
"""Indexes that give few runs, all of which may be sorted."""


def scans(plan: Mapping[str, Any], above: tuple[Mapping[str, Any], ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield each node of a plan that reads `runs` or `run_tasks`, with the nodes above it, the nearest first."""
    if plan.get("Relation Name") in ("runs", "run_tasks"):
        yield plan, above
    for inner in plan.get("Plans", ()):
        yield from scans(inner, (plan, *above))


def require_bounded(plan: Mapping[str, Any]) -> None:
    """Require that each scan reads an index, at a place or in order, and that nothing sorts all that an index has."""
    for scan, above in scans(plan):
        assert scan["Node Type"] in ("Index Scan", "Index Only Scan"), scan
        index = scan["Index Name"]
        assert "Index Cond" in scan or index in IN_ORDER_OF, scan
        if scan["Relation Name"] != "runs" or index in OF_FEW:
            continue
        for node in above:
            if node["Node Type"] == "Limit":
                break
            assert node["Node Type"] not in ("Sort", "Incremental Sort", "Aggregate", "WindowAgg"), (node, index)


async def explained(transaction: Transaction, statement: Any, values: Mapping[str, Any], how: str = "") -> Any:
    """Return the plan of a statement."""
    (row,) = await transaction.rows(text(f"EXPLAIN (FORMAT JSON {how}) {statement}"), values)
    found: Any = row["QUERY PLAN"]
    return (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]


async def test_every_list_that_the_page_asks_for_reads_a_bounded_part_of_an_index(
    world: World, database_url: str, database_schema: str
) -> None:
    """Each state with each text, name, group, and the last of each group; its counts, too; first and later pages."""
    others: Sequence[dict[str, Any]] = (
        {},
        {"text": "#12"},
        {"text": COMMIT},
        {"text": "zebra"},
        {"name": "run7"},
        {"name": "run7", "text": "zebra"},
    )
    async with large(database_url, database_schema, world) as database, database.snapshot(timeout=120) as transaction:
        await transaction.execute(IN_ORDER)
        checked = 0
        for groups, state, other, last in product(PAGE_GROUPS, PAGE_STATES, others, (False, True)):
            start = 250_000_000 if checked % 2 else 0
            query = RunQuery(groups=groups, last_run=last, start=start, **{**state, **other})
            listing = Listing(query)
            stops = listing.stops()
            statements = [(listing.page(), listing.values), *([(stops, listing.values)] if stops is not None else [])]
            for statement, values in (*statements, *([listing.counts()] if not start else [])):
                plan = await explained(transaction, statement, values)
                try:
                    require_bounded(plan)
                except AssertionError as error:
                    raise AssertionError(f"{query}: {error}\n{statement}") from None
            checked += 1
    assert checked == len(PAGE_GROUPS) * len(PAGE_STATES) * len(others) * 2


def most_loops(plan: Mapping[str, Any]) -> int:
    """Return how often the plan looked for a later run."""
    return max(int(scan["Actual Loops"]) for scan, _ in scans(plan) if scan["Alias"] == "later")


async def test_the_last_runs_of_many_projects_are_looked_for_until_the_page_is_full(
    world: World, database_url: str, database_schema: str
) -> None:
    """Not for each run that the projects' indexes give."""
    query = RunQuery(groups=PAGE_GROUPS[-1], last_run=True, limit=3)
    async with large(database_url, database_schema, world) as database, database.snapshot(timeout=60) as transaction:
        await transaction.execute(IN_ORDER)
        listing = Listing(query)
        page = await list_runs(transaction, query)
        plan = await explained(transaction, listing.page(), listing.values, ", ANALYZE")
    assert len(page.runs) == 3
    assert 3 < most_loops(plan) < 100
