"""(f) A snapshot imported by `runstream import` into a deployment in maintenance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import psutil

from benchmarks.children import Took, timed
from benchmarks.standing import Servers
from runstream import config_folding
from runstream.database import Database
from runstream.database.migrating import migrate
from runstream.datamanager.startup import record_epoch
from runstream.jetstream.connection import nats_connection
from runstream.log import streams
from runstream.log.jetstream import open_log
from runstream.maintenance.request import SERVICE, MaintenanceControl, Order

_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Import:
    """Time and memory of an import."""

    command: Took
    """The command and all its processes."""
    server_cpu_seconds: dict[str, float]
    """CPU time of NATS and of Postgres meanwhile."""


async def make_target(servers: Servers, namespace: str, partitions: int) -> None:
    """Create an empty deployment in maintenance, without members to park."""
    await migrate(servers.postgres.url, namespace)
    database = Database(servers.postgres.url, namespace, pool_size=1)
    try:
        async with nats_connection(servers.nats.url, "benchmarks") as client:
            await streams.create_control_bucket(client, namespace, 1)
            for service, count in ((SERVICE, partitions), (config_folding.SERVICE, 1)):
                async with await open_log(client, namespace, service, create=True, partitions=count) as log:
                    await record_epoch(database, service, log.epoch, count)
                order = Order("benchmark", "benchmark", "an import is measured", datetime.now(UTC))
                await MaintenanceControl(client, namespace).enable(service, order)
    finally:
        await database.close()


async def import_into(servers: Servers, namespace: str, file: Path, runs: int) -> Import:
    """Import a snapshot of that many runs. Raises RuntimeError when they are not there afterwards."""
    url = ("--nats-url", servers.nats.url, "--database-url", servers.postgres.url)
    where = (*url, "--namespace", namespace, "--database-schema", namespace)
    before = _cpu_seconds(servers)
    took = await timed("import", file, *where, seconds=_SECONDS)
    after = _cpu_seconds(servers)
    connection = await asyncpg.connect(servers.postgres.url)
    try:
        found = await connection.fetchval(f'SELECT count(*) FROM "{namespace}".runs WHERE archived')  # noqa: S608
    finally:
        await connection.close()
    if found != runs:
        raise RuntimeError(f"{found} runs are there after an import of {runs}")
    return Import(took, {name: after[name] - before[name] for name in after})


def _cpu_seconds(servers: Servers) -> dict[str, float]:
    """What each server has taken so far, with its processes that have ended."""
    taken: dict[str, float] = {}
    for name, server in (("NATS", servers.nats), ("Postgres", servers.postgres)):
        if server.process is not None:
            parent = psutil.Process(server.process.pid)
            times = parent.cpu_times()
            ended = times.children_user + times.children_system
            living = (child.cpu_times() for child in parent.children())
            taken[name] = times.user + times.system + ended + sum(one.user + one.system for one in living)
    return taken
