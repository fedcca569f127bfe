"""The schema beside the live one: created empty, filled without secondary indexes, exchanged in one transaction.

    created (migrated) -> indexes dropped -> filled -> indexes created, analyzed -> its tables replace the live ones

Tables move to the other schema instead of being copied: the exchange takes as long as its locks, whatever their size.
In tables that projections share, it replaces this projection's rows. The exchange waits for open readers.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import structlog

from runstream.database.connection import Connection, connect, hang_up, quoted
from runstream.database.database import Database
from runstream.database.failures import bounded, sqlstate
from runstream.database.freshness import channel_of
from runstream.database.migrating import migrate
from runstream.errors import BadRequestError, ConflictError, InternalError
from runstream.tables import PROJECTION

EXCHANGED = ("runs", "run_tasks", "executor_tasks", "executors", "run_configs", "counters")
"""Tables that hold nothing but this projection."""
SHARED = ("checkpoints", "parked")
"""Tables in which each projection has its own rows."""
_MARK = "Runstream: a projection beside the live one; nobody needs it"
LOCK_MILLISECONDS = 500
"""How long queries may queue behind an exchange that waits for its locks itself; less than it takes Postgres to find a
deadlock, so that it is never a reader who is ended."""
EXCHANGE_SECONDS = 120.0
"""How long an exchange is tried again."""
SCHEMA_SECONDS = 1800.0
_IN_USE = frozenset({"55P03", "40P01"})
"""A lock was not to be had in time, or only by a deadlock."""
_HAS_DEPENDENTS = "2BP01"
_ANNOUNCE = """
SELECT pg_notify($1, format('%s:%s:%s', epoch, partition, sequence)) FROM checkpoints WHERE projection = $2
"""
log = structlog.get_logger()

Further = Callable[[Connection], Awaitable[None]]
"""Does something more in the transaction of an exchange."""


def schema_beside(schema: str) -> str:
    """The name of the schema in which the projection of a schema is made anew."""
    name = f"{schema}_beside"
    return name if len(name.encode()) <= 63 else f"beside_{hashlib.sha256(schema.encode()).hexdigest()[:32]}"


async def make_empty(url: str, schema: str) -> list[str]:
    """Make the schema with empty tables; the statements that make its secondary indexes, which it does not have yet.

    One that an earlier attempt left is made anew. Raises ConflictError for a schema that is somebody else's.
    """
    await drop(url, schema)
    connection = await connect(url, schema, application="runstream rebuild")
    try:
        async with bounded(_deadline()):
            # At once: a schema without the mark would be somebody else's for ever.
            async with connection.transaction():
                await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
                await connection.execute(f"COMMENT ON SCHEMA {quoted(schema)} IS '{_MARK}'")
            await migrate(url, schema)
            return await _indexes_away(connection, schema)
    finally:
        await hang_up(connection)


async def drop(url: str, schema: str) -> None:
    """Remove the schema, if it is there. Raises ConflictError for one that was not made by `make_empty`."""
    connection = await connect(url, "public", application="runstream rebuild")
    try:
        async with bounded(_deadline()):
            marks = await connection.fetch(
                "SELECT obj_description(oid, 'pg_namespace') AS mark FROM pg_namespace WHERE nspname = $1", schema
            )
            if not marks:
                return
            if marks[0]["mark"] != _MARK:
                raise ConflictError(
                    f"there is a schema {schema!r} already, and it was not made by a rebuild",
                    code="schemaExists",
                    hint="name another one, or drop it first if nobody needs it",
                )
            await connection.execute(f"DROP SCHEMA {quoted(schema)} CASCADE")
    finally:
        await hang_up(connection)


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
    """Make the secondary indexes, several at once, and let the planner know the tables."""

    async def work(statement: str) -> None:
        connection = await connect(url, schema, application="runstream rebuild")
        try:
            async with bounded(_deadline()):
                await connection.execute("SET maintenance_work_mem = '128MB'; SET statement_timeout = 0")
                await connection.execute(statement)
        finally:
            await hang_up(connection)

    room = asyncio.Semaphore(2)

    async def in_turn(statement: str) -> None:
        async with room:
            await work(statement)

    async with asyncio.TaskGroup() as group:
        for statement in statements:
            group.create_task(in_turn(statement))
    await work(f"ANALYZE {', '.join((*EXCHANGED, *SHARED))}")


async def exchange(database: Database, beside: str, further: Further | None = None) -> None:
    """Put the projection of the schema `beside` in the place of the live one, and remove that schema; all or nothing.

    `further` is done in the same transaction, which is on disk when this returns. Raises ConflictError when readers do
    not let go of the tables in time, InternalError when the database fails; what became of it is then not known.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + EXCHANGE_SECONDS
    connection = await database.connect()
    try:
        while not await _exchanged(connection, database.schema, beside, further, deadline):
            if loop.time() > deadline:
                raise ConflictError(
                    "the tables of the projection are in use all the time",
                    code="tablesInUse",
                    hint="end what reads them for long (`runstream fsck`, pg_dump, an open psql): see pg_stat_activity",
                )
            log.info("the tables are in use, the exchange tries again", action="exchange_waits")
    finally:
        await hang_up(connection)


async def _exchanged(
    connection: Connection, schema: str, beside: str, further: Further | None, deadline: float
) -> bool:
    """Whether the exchange went through; False when a table stayed in use for `LOCK_MILLISECONDS`."""
    try:
        async with bounded(deadline + EXCHANGE_SECONDS), connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}; SET LOCAL synchronous_commit = on")
            for statement in _statements(quoted(schema), quoted(beside)):
                await connection.execute(statement)
            await connection.execute(_ANNOUNCE, channel_of(schema), PROJECTION)
            if further is not None:
                await further(connection)
    except InternalError as error:
        state = sqlstate(error.__cause__) if error.__cause__ is not None else ""
        if state == _HAS_DEPENDENTS:
            raise BadRequestError(
                f"something else in the database rests on the tables of the projection: {error.__cause__}",
                code="tablesReferenced",
                hint="drop those views or keys first, and make them again afterwards",
            ) from error
        if state not in _IN_USE:
            raise
        return False
    return True


def _statements(schema: str, beside: str) -> list[str]:
    # Checkpoints first: who reads rows as of a checkpoint, or writes behind one, takes that first.
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


def _deadline() -> float:
    return asyncio.get_running_loop().time() + SCHEMA_SECONDS
