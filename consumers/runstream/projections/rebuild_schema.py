"""The schema beside the live one: created empty, filled without secondary indexes, exchanged in one transaction.

    created (migrated) -> indexes dropped -> filled -> indexes created, analyzed -> its tables replace the live ones

Tables move to the other schema instead of being copied: the exchange takes as long as its locks, whatever their size.
In tables that projections share, it replaces this projection's rows. The exchange waits for open readers.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from runstream.database.connection import Connection, connect, hung_up, quoted
from runstream.database.database import Database
from runstream.database.failures import bounded, sqlstate
from runstream.database.freshness import channel_of
from runstream.database.migrating import migrate
from runstream.errors import BadRequestError, ConflictError, InternalError
from runstream.lifecycle import for_each
from runstream.tables import PROJECTION

EXCHANGED = (
    *("runs", "run_tasks", "task_failures", "deleted_runs", "executor_tasks"),
    *("executors", "run_configs", "counters"),
)
"""Tables that hold only this projection."""
SHARED = ("checkpoints", "parked")
"""Tables in which each projection has its own rows."""
_MARK = "Runstream: a projection beside the live one; nobody needs it"
"""Comment on a schema that a rebuild may drop. It is stored in databases, so it never changes."""
LOCK_MILLISECONDS = 500
"""Limit for queries to queue behind an exchange that waits for its own locks; less than deadlock_timeout, so that
Postgres never ends a reader."""
EXCHANGE_SECONDS = 120.0
"""Seconds during which an exchange is retried."""
SCHEMA_SECONDS = 1800.0
_IN_USE = frozenset({"55P03", "40P01"})
"""SQLSTATE of a lock that was not available in time, and of a deadlock."""
_HAS_DEPENDENTS = "2BP01"
_ANNOUNCE = """
SELECT pg_notify($1, format('%s:%s:%s', epoch, partition, sequence)) FROM checkpoints WHERE projection = $2
"""
log = structlog.get_logger()

Change = Callable[[Connection], Awaitable[None]]
"""A change of rows, in the transaction of the connection."""


def schema_beside(schema: str) -> str:
    """Return the name of the schema in which a schema's projection is rebuilt."""
    name = f"{schema}_beside"
    return name if len(name.encode()) <= 63 else f"beside_{hashlib.sha256(schema.encode()).hexdigest()[:32]}"


async def make_empty(url: str, schema: str) -> list[str]:
    """Create the schema with empty tables and no secondary indexes; return the statements that create those.

    Replaces what an earlier attempt left. Raises ConflictError for a schema that no rebuild created.
    """
    await drop(url, schema)
    async with _connected(url, schema) as connection:
        # In one transaction: a schema without the mark could never be dropped again.
        async with connection.transaction():
            await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
            await connection.execute(f"COMMENT ON SCHEMA {quoted(schema)} IS '{_MARK}'")
        await migrate(url, schema)
        return await _indexes_away(connection, schema)


async def drop(url: str, schema: str) -> None:
    """Drop the schema, if it exists. Raises ConflictError for one that `make_empty` did not create."""
    async with _connected(url, "public") as connection:
        marks = await connection.fetch(
            "SELECT obj_description(oid, 'pg_namespace') AS mark FROM pg_namespace WHERE nspname = $1", schema
        )
        if not marks:
            return
        if marks[0]["mark"] != _MARK:
            raise ConflictError(
                f"there is a schema {schema!r} already, and no rebuild created it",
                code="schemaExists",
                hint="name another one, or drop it first if it is not needed",
            )
        await connection.execute(f"DROP SCHEMA {quoted(schema)} CASCADE")


async def _indexes_away(connection: Connection, schema: str) -> list[str]:
    found = await connection.fetch(
        """
        SELECT indexname, indexdef FROM pg_indexes
        WHERE schemaname = $1 AND tablename = ANY($2)
            AND NOT EXISTS (SELECT FROM pg_constraint JOIN pg_namespace n ON n.oid = connamespace
                            WHERE n.nspname = $1 AND conname = indexname)
        """,
        schema,
        list(EXCHANGED),
    )
    for row in found:
        await connection.execute(f"DROP INDEX {quoted(schema)}.{quoted(row['indexname'])}")
    return [row["indexdef"] for row in found]


async def make_indexes(url: str, schema: str, statements: list[str]) -> None:
    """Create the secondary indexes, two at a time, and analyze the tables."""

    async def work(statement: str) -> None:
        async with _connected(url, schema) as connection:
            await connection.execute("SET maintenance_work_mem = '128MB'; SET statement_timeout = 0")
            await connection.execute(statement)

    await for_each(statements, work, at_once=2)
    await work(f"ANALYZE {', '.join((*EXCHANGED, *SHARED))}")


def exchange(database: Database, beside: str) -> Change:
    """Return the change that replaces the live projection by that of the schema `beside`, and drops that schema."""

    async def change(connection: Connection) -> None:
        for statement in _statements(quoted(database.schema), quoted(beside)):
            await connection.execute(statement)
        await connection.execute(_ANNOUNCE, channel_of(database.schema), PROJECTION)

    return change


async def apply_at_once(database: Database, changes: Sequence[Change]) -> None:
    """Make all changes in one transaction, which is on disk when this returns.

    Raises ConflictError when readers hold the tables for too long, InternalError when the database fails: the changes
    may then have happened or not.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + EXCHANGE_SECONDS
    async with hung_up(await database.connect()) as connection:
        while not await _applied(connection, changes, deadline):
            if loop.time() > deadline:
                raise ConflictError(
                    f"the tables of the projection stayed in use for {EXCHANGE_SECONDS:.0f} s",
                    code="tablesInUse",
                    hint="end what reads them for long (`runstream fsck`, pg_dump, an open psql): see pg_stat_activity",
                )
            log.info("the tables are in use, the exchange tries again", action="exchange_waits")


async def _applied(connection: Connection, changes: Sequence[Change], deadline: float) -> bool:
    """Return whether the changes went through; False when a table stayed in use for `LOCK_MILLISECONDS`."""
    try:
        async with bounded(deadline + EXCHANGE_SECONDS), connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}; SET LOCAL synchronous_commit = on")
            for change in changes:
                await change(connection)
    except InternalError as error:
        state = sqlstate(error.__cause__) if error.__cause__ is not None else ""
        if state == _HAS_DEPENDENTS:
            raise BadRequestError(
                f"other objects in the database depend on the tables of the projection: {error.__cause__}",
                code="tablesReferenced",
                hint="drop those views or keys first, and create them again afterwards",
            ) from error
        if state not in _IN_USE:
            raise
        return False
    return True


def _statements(schema: str, beside: str) -> list[str]:
    # Checkpoints first: readers as of a checkpoint, and writers behind one, lock that table first.
    statements = [f"LOCK TABLE {', '.join(f'{schema}.{table}' for table in (*SHARED, *EXCHANGED))}"]
    for table in EXCHANGED:
        statements.append(f"DROP TABLE {schema}.{table}")
        statements.append(f"ALTER TABLE {beside}.{table} SET SCHEMA {schema}")
    for table in SHARED:
        mine = f"WHERE projection = '{PROJECTION}'"
        statements.append(f"DELETE FROM {schema}.{table} {mine}")  # noqa: S608  names of ours
        statements.append(f"INSERT INTO {schema}.{table} SELECT * FROM {beside}.{table} {mine}")  # noqa: S608
    statements.append(f"DROP SCHEMA {beside} CASCADE")
    return statements


@asynccontextmanager
async def _connected(url: str, schema: str) -> AsyncIterator[Connection]:
    async with (
        hung_up(await connect(url, schema, application="runstream rebuild")) as connection,
        bounded(asyncio.get_running_loop().time() + SCHEMA_SECONDS),
    ):
        yield connection
