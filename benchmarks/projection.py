"""(b) Commits projected by one scheduler process that begins anew, beside raw COPY and upsert of the same rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg
import msgspec

from benchmarks.figures import Figures
from benchmarks.standing import Deployment, Servers
from benchmarks.throughput import append, load
from benchmarks.watching import end_of
from benchmarks.workloads import CHAIN, ONE
from runstream import tables
from runstream.gateway.runs.create import RunCreation
from runstream.projections.store import upsert
from runstream.tables import ExecutorTaskRow, RunRow, RunTaskRow

AIM = 6000.0
RUNS = {ONE: 3000, CHAIN: 1000}
UPSERTED = 500
"""Rows a statement."""
_TABLES = (
    (tables.runs, RunRow._fields),
    (tables.run_tasks, RunTaskRow._fields),
    (tables.executor_tasks, ExecutorTaskRow._fields),
)
_LOOK_SECONDS = 0.01
_REACH_SECONDS = 90.0

Rows = list[tuple[str, tuple[str, ...], str, list[asyncpg.Record]]]
"""For each table its name, its columns, the statement that upserts, and its rows."""


async def measure(servers: Servers, figures: Figures, repetitions: int, noop: dict[str, tuple[str, ...]]) -> None:
    """Have a log written by the real thing, end that, and let a scheduler with an empty database read it."""
    deployment = Deployment(servers, "projection")
    async with servers.log("projection") as log:
        async with deployment.running(**noop):
            creation = RunCreation(log, lambda: datetime.now(UTC))
            for workload, runs in RUNS.items():
                await load(log, append(creation, workload), 200, runs)
        commits = sum((await end_of(log)).sequences)
    rates, copies, upserts = [], [], []
    for number in range(repetitions):
        again = Deployment(servers, "projection", schema=f"projection_{number}")
        connection = await asyncpg.connect(servers.postgres.url)
        try:
            rates.append(await _rate(again, connection, commits))
            rows = await _rows(connection, again.schema)
            copies.append(commits / await _copied(connection, rows, again.schema))
            upserts.append(commits / await _upserted(connection, rows, again.schema))
        finally:
            await connection.close()
    figures.add("b", "COPY of the final rows, raw", "commits/s", copies, limit=True)
    figures.add("b", f"upsert of the final rows, {UPSERTED} a statement, raw", "commits/s", upserts, limit=True)
    figures.add("b", "projected by one scheduler", "commits/s", rates, aim=AIM, note=f"{commits} commits")


async def _rate(deployment: Deployment, connection: asyncpg.Connection[asyncpg.Record], commits: int) -> float:
    """Commits a second from the first batch that is seen in the database until all are there."""
    first, begun = 0, 0.0
    async with deployment.running(scheduler=()), asyncio.timeout(_REACH_SECONDS):
        while (at := await _projected(connection, deployment.schema)) < commits:
            if at and not first:
                first, begun = at, time.perf_counter()
            await asyncio.sleep(_LOOK_SECONDS)
        return (at - first) / (time.perf_counter() - begun)


async def _projected(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> int:
    """How many commits all partitions have projected; the schema is made before the scheduler serves."""
    at: int = await connection.fetchval(f'SELECT coalesce(sum(sequence), 0)::bigint FROM "{schema}".checkpoints')  # noqa: S608
    return at


async def _rows(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> Rows:
    """What the scheduler wrote."""
    await connection.execute(f'SET search_path = "{schema}"')
    found: Rows = []
    for table, columns in _TABLES:
        names = ", ".join(f'"{name}"' for name in columns)
        rows = await connection.fetch(f"SELECT {names} FROM {table.name}")  # noqa: S608
        found.append((table.name, columns, upsert(table, columns), rows))
    return found


async def _copied(connection: asyncpg.Connection[asyncpg.Record], rows: Rows, schema: str) -> float:
    """Seconds that COPY of the rows takes, into tables with the same indexes."""
    await _empty_tables(connection, schema, f"{schema}_copied")
    begun = time.perf_counter()
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = off")
        for table, columns, _, records in rows:
            await connection.copy_records_to_table(table, columns=columns, records=map(tuple, records))
    return time.perf_counter() - begun


async def _upserted(connection: asyncpg.Connection[asyncpg.Record], rows: Rows, schema: str) -> float:
    """Seconds that it takes to upsert the rows, each batch of a table a transaction."""
    await _empty_tables(connection, schema, f"{schema}_upserted")
    begun = time.perf_counter()
    for _, _, statement, records in rows:
        for start in range(0, len(records), UPSERTED):
            async with connection.transaction():
                await connection.execute("SET LOCAL synchronous_commit = off")
                await connection.execute(statement, _json(records[start : start + UPSERTED]))
    return time.perf_counter() - begun


async def _empty_tables(connection: asyncpg.Connection[asyncpg.Record], like: str, schema: str) -> None:
    await connection.execute(f'CREATE SCHEMA "{schema}"')
    for table, _ in _TABLES:
        await connection.execute(f'CREATE TABLE "{schema}"."{table.name}" (LIKE "{like}"."{table.name}" INCLUDING ALL)')
    await connection.execute(f'SET search_path = "{schema}"')


def _json(records: Sequence[asyncpg.Record]) -> str:
    return msgspec.json.encode([dict(record) for record in records]).decode()
