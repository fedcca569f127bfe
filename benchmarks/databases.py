"""(f) Postgres alone with the rows of a projection: raw COPY, and its own dump and restore."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg
import psutil

from benchmarks.standing import Servers
from runstream.projections.rebuild_schema import EXCHANGED

_SECONDS = 300.0
_JOBS = 2
"""Of dump and restore: one for each core."""


async def copied(servers: Servers, schema: str) -> float:
    """Seconds that a binary COPY of all rows takes, from memory into tables with the same indexes."""
    copy = f"{schema}_copied"
    connection = await asyncpg.connect(servers.postgres.url)
    try:
        await connection.execute(f'DROP SCHEMA IF EXISTS "{copy}" CASCADE; CREATE SCHEMA "{copy}"')
        files = {table: servers.folder / f"{table}.copy" for table in EXCHANGED}
        for table, file in files.items():
            await connection.copy_from_table(table, schema_name=schema, output=file, format="binary")
            await connection.execute(f'CREATE TABLE "{copy}".{table} (LIKE "{schema}".{table} INCLUDING ALL)')
        begun = time.perf_counter()
        async with connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = off")
            for table, file in files.items():
                await connection.copy_to_table(table, schema_name=copy, source=file, format="binary")
        took = time.perf_counter() - begun
        await connection.execute(f'DROP SCHEMA "{copy}" CASCADE')
    finally:
        await connection.close()
    for file in files.values():
        file.unlink()
    return took


async def dumped_and_restored(servers: Servers, schema: str) -> tuple[float, float] | None:
    """Seconds that `pg_dump` of the schema takes, and `pg_restore` into a new database; None without the programs."""
    dump, restore = _program(servers, "pg_dump"), _program(servers, "pg_restore")
    if dump is None or restore is None:
        return None
    folder, database = servers.folder / "dump", f"restored_{schema}".replace("-", "_")
    jobs = f"--jobs={_JOBS}"
    connection = await asyncpg.connect(servers.postgres.url)
    try:
        await connection.execute(f"CREATE DATABASE {database}")
        dumping = await _run(servers, dump, "--format=directory", jobs, f"--schema={schema}", f"--file={folder}")
        restoring = await _run(servers, restore, jobs, folder, database=database)
        await connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
    finally:
        await connection.close()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return dumping, restoring


def _program(servers: Servers, name: str) -> Path | None:
    """A program of Postgres: beside the server that runs, or else where commands are looked for."""
    if servers.postgres.process is not None:
        beside = Path(psutil.Process(servers.postgres.process.pid).exe()).with_name(name)
        if beside.exists():
            return beside
    found = shutil.which(name)
    return Path(found) if found is not None else None


async def _run(servers: Servers, program: Path, *words: str | Path, database: str = "") -> float:
    """Seconds that a program of Postgres takes. Raises RuntimeError when it fails."""
    parts = urlsplit(servers.postgres.url)
    server = f"{parts.username}@{parts.hostname}:{parts.port}"
    where = parts._replace(netloc=server, path=f"/{database}" if database else parts.path)
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        program,
        f"--dbname={urlunsplit(where)}",
        *words,
        env={**os.environ, "PGPASSWORD": unquote(parts.password or "")},
        stdout=DEVNULL,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            _, told = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"{program.name} failed: {told.decode()}")
    return time.perf_counter() - begun
