"""The bare program makes the commits and events that the product makes for the same run, and projects them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import chain

import asyncpg
import orjson
from benchmarks import bare
from benchmarks.comparison import bare_append, bare_watching
from benchmarks.workloads import CHAIN, ONE, Workload

from runstream.events import executor_task, run
from tests.servers import Servers

TASK = (
    ("ExecutorTaskAssigned",),
    ("ExecutorTaskStarted",),
    (
        "ExecutorTaskSetupFinished",
        "ExecutorTaskLogLost",
        "ExecutorTaskStepStarted",
        "ExecutorTaskStepFinished",
        "ExecutorTaskLogLost",
        "ExecutorTaskFinished",
    ),
)
BEGIN = (("RunCreated",), ("RunNumbered", "RunStarted"))
END = (("RunResultSet", "RunFinished", "RunArchived"),)
RUNS = 12
"""Of each workload at once: more than are published side by side in a partition, so that there are batches too."""


async def test_a_run_makes_the_commits_of_the_product(servers: Servers) -> None:
    name = servers.namespace
    await bare.create(servers.nats_url, servers.database_url, name)
    async with bare.connected(servers.nats_url) as client, asyncio.TaskGroup() as group:
        log = bare.Log(client, name)
        parts = [log.run(), bare.schedule(log, servers.database_url), bare.execute(log)]
        running = [group.create_task(part) for part in parts]
        async with bare_watching(log) as watch:
            publish = {workload: bare_append(log, workload) for workload in (ONE, CHAIN)}
            made = await asyncio.gather(*[publish[w](0) for w in publish for _ in range(RUNS)])
            await watch.until(made)
        commits = await _by_run(log)
        await _projected(servers, log)
        for task in running:
            task.cancel()
    assert [commits[run_id] for run_id in made] == [_expected(w) for w in (ONE, CHAIN) for _ in range(RUNS)]


def test_the_events_are_those_of_the_product() -> None:
    names = set(chain.from_iterable((*BEGIN, *TASK, *END)))
    assert not {each for each in names if not (hasattr(run, each) or hasattr(executor_task, each))}


def _expected(workload: Workload) -> list[tuple[str, ...]]:
    return [*BEGIN, *(TASK * len(workload.commands)), *END]


async def _by_run(log: bare.Log) -> dict[str, list[tuple[str, ...]]]:
    """The types of events of each commit, by run, in the order of the log."""
    found: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    run_of: dict[str, str] = {}
    for partition in range(bare.PARTITIONS):
        end, at = await log.end(partition), 0
        reading = log.read(partition, ">")
        while at < end:
            for at, body in await anext(reading):  # noqa: B007 - it is how far was read
                commit = orjson.loads(body)
                kind, _, key = commit["aggregate"].partition("/")
                if kind == "task":
                    key = run_of.setdefault(key, commit["events"][0].get("run_id", ""))
                found[key].append(tuple(event["type"] for event in commit["events"]))
        await reading.aclose()
    return found


async def _projected(servers: Servers, log: bare.Log) -> None:
    """Wait until all is projected, and look at the rows."""
    connection = await asyncpg.connect(servers.database_url, server_settings={"search_path": log.name})
    try:
        ends = [await log.end(partition) for partition in range(bare.PARTITIONS)]
        reached = "SELECT sequence FROM checkpoints ORDER BY partition"
        while [row[0] for row in await connection.fetch(reached)] != ends:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # sleeps: nothing tells when the bare program has projected
        phases = await connection.fetch("SELECT phase, result, count(*) FROM runs GROUP BY 1, 2")
        assert [tuple(row) for row in phases] == [("finished", "success", 2 * RUNS)]
        tasks = await connection.fetch("SELECT phase, jsonb_array_length(steps), count(*) FROM tasks GROUP BY 1, 2")
        assert [tuple(row) for row in tasks] == [("success", 1, 4 * RUNS)]
        await connection.execute(f'DROP SCHEMA "{log.name}" CASCADE')
    finally:
        await connection.close()
