"""(l) Reads of a deployment with many runs: lists by every filter, counts, a run now and as it was, a group, why.

A run is created and followed, too. A generated log is projected, then the gateway answers. A generated log has
successful runs and setup errors alone, so some rows are given other states, commits and messages in the database.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import quote

import asyncpg
import msgspec

from benchmarks.children import RUNSTREAM, run_timed
from benchmarks.figures import Figures, percentile
from benchmarks.generate import append
from benchmarks.http import Connection, connections
from benchmarks.standing import PARTITIONS, Deployment, Servers
from runstream.database import Database
from runstream.database.migrating import migrate
from runstream.datamanager.startup import record_epoch
from runstream.maintenance.request import SERVICE
from runstream.projections.rebuild import rebuild

AIM = 20.0
"""Milliseconds, at the 99th percentile."""
PAST_AIM = 50.0
"""Milliseconds, at the 99th percentile: a history is read from the log."""
REQUESTS = 100
PROJECTS = 64
"""Number of projects of a reader who sees that many."""
_COMPONENTS: dict[str, tuple[str, ...]] = {
    "gateway": (),
    "scheduler": (),
    "executor": ("--driver", "process", "--sandbox", "off"),
}
_STATES = """
UPDATE runs SET
    phase = CASE WHEN n % 5000 = 0 THEN 'running' WHEN n % 3000 = 0 THEN 'queued' WHEN n % 997 = 0 THEN 'cancelled'
        ELSE phase END,
    result = CASE WHEN n % 5000 = 0 OR n % 3000 = 0 OR n % 997 = 0 THEN 'unknown' WHEN n % 101 = 0 THEN 'failed'
        ELSE 'success' END,
    annotations = json_build_object('number', n::text, 'commit_sha', md5(n::text), 'message', 'Change ' || n)
FROM (SELECT id, (annotations ->> 'number')::integer AS n FROM runs WHERE phase = 'finished') AS numbered
WHERE runs.id = numbered.id AND (n % 5000 = 0 OR n % 3000 = 0 OR n % 997 = 0 OR n % 101 = 0)
"""
_ECHO = """
runs:
  - name: echo
    tasks:
      - {name: echo, runtime: {type: host}, steps: [{run: echo hello}]}
"""
_ROOT, _BRANCH = "/project/p7", "/project/p7/branch/b7"


def _queries(runs: int) -> Mapping[str, str]:
    """Return what is asked, by name."""
    root, branch = f"group={quote(_ROOT)}", f"group={quote(_BRANCH)}"
    projects = "&".join(f"group={quote(f'/project/p{number}')}" for number in range(PROJECTS))
    filters = {
        "all": "",
        "phase=running": "phase=running",
        "phase=queued": "phase=queued",
        "phase=finished": "phase=finished",
        "result=failed": "result=failed",
        "result=success": "result=success",
        "result=stopped (none)": "result=stopped",
        "project": root,
        "project, running": f"{root}&phase=running",
        "project, failed": f"{root}&result=failed",
        "branch": branch,
        "branch, failed": f"{branch}&result=failed",
        "name": "name=generated",
        "last of each group": "lastrun",
        "last of each group, failed": "lastrun&result=failed",
        "project, last of each group": f"lastrun&{root}",
        f"{PROJECTS} projects": projects,
        f"{PROJECTS} projects, failed": f"{projects}&result=failed",
        f"{PROJECTS} projects, last of each group": f"lastrun&{projects}",
        f"{PROJECTS} projects, last of each group, failed": f"lastrun&{projects}&result=failed",
        "number": "text=%2377",
        "commit": "text=38b3eff8baf56627478ec76a704e9b52",
        "text": "text=Change",
        "text of no run": "text=zebra",
        "project, text": f"text=b{runs // 2}&{root}",
        "waiting for approval": "waitingapproval",
    }
    lists = {f"list: {name}": f"/runs?{query}" for name, query in filters.items()}
    counts = {
        f"list with counts: {name}": f"/runs?{query}&counts"
        for name, query in filters.items()
        if name
        in ("all", "project", "branch", "text", "last of each group", f"{PROJECTS} projects, last of each group")
    }
    return {**lists, **counts, "group": f"/groups/{quote(_BRANCH, safe='')}", "flaky": "/flaky"}


async def measure(servers: Servers, figures: Figures, repetitions: int, runs: int) -> None:
    """Make the log and its rows, and ask."""
    deployment = Deployment(servers, "lists")
    await _fill(servers, deployment, runs)
    async with deployment.running(**_COMPONENTS):
        async with connections(deployment.url, deployment.token, 1) as (connection,):
            queries = dict(_queries(runs))
            page = msgspec.json.decode(await connection.request("GET", "/runs?phase=running&limit=1", b"", 200))
            run = page["runs"][0]["id"]
            history = msgspec.json.decode(await connection.request("GET", f"/runs/{run}/history", b"", 200))
            middle = history["commits"][history["count"] // 2]["position"]
            queries |= {"a run": f"/runs/{run}", "why": f"/runs/{run}/why"}
            past = {"history": f"/runs/{run}/history", "a run as of a commit": f"/runs/{run}?at={quote(middle)}"}
            for name, path in (*queries.items(), *past.items()):
                samples = [await _samples(connection, path) for _ in range(repetitions)]
                aim = PAST_AIM if name in past else AIM
                figures.add("l", f"{name}: p99", "ms", [percentile(s, 99) for s in samples], aim=aim, better="less")
        there = [await _followed(servers, deployment) for _ in range(repetitions)]
    empty = Deployment(servers, "empty")
    async with servers.log(empty.namespace), empty.running(**_COMPONENTS):
        alone = [await _followed(servers, empty) for _ in range(repetitions)]
    figures.add("l", "run create --follow of an echo, in an empty log", "s", alone, limit=True)
    figures.add("l", "run create --follow of an echo", "s", there, better="less", note=f"{runs:,} runs")


async def _followed(servers: Servers, deployment: Deployment) -> float:
    """Return the seconds that a run of an echo takes, followed to its end."""
    config = servers.folder / "echo.yml"
    config.write_text(_ECHO)
    url, token = f"RUNSTREAM_URL={deployment.url}", f"RUNSTREAM_TOKEN={deployment.token}"
    command = (RUNSTREAM, "run", "create", "--config", config, "--group", "/project/echo/main", "--follow")
    return (await run_timed("env", url, token, *command, seconds=60.0)).seconds


async def _fill(servers: Servers, deployment: Deployment, runs: int) -> None:
    url, schema = servers.postgres.url, deployment.namespace
    await migrate(url, schema)
    async with servers.log(deployment.namespace) as log, Database(url, schema, pool_size=2) as database:
        await record_epoch(database, SERVICE, log.epoch, PARTITIONS)
        await append(servers.nats.url, log, runs)
        await rebuild(servers.nats.url, log, database, lambda *_: None)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'SET search_path = "{schema}"')
        await connection.execute(_STATES)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


async def _samples(connection: Connection, path: str) -> list[float]:
    """Return the milliseconds of each request."""
    taken = []
    for _ in range(REQUESTS):
        begun = time.perf_counter()
        await connection.request("GET", path, b"", 200)
        taken.append((time.perf_counter() - begun) * 1000)
    return taken
