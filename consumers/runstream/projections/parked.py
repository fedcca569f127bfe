"""Parked commits: listing them, asking for a retry, and deciding that one is never applied.

A commit is parked by its position and the reason, never as a copy: after a fix it is read again from the log with
today's code. A retry is a request on the schema's channel: the scheduler that owns the partition reads the parked
commits from the log in order, and unparks what applies now.

Skipping a commit is an event in the log (`CommitSkipped`), so that every fold of the log comes to the same state. The
scheduler of the partition then retries the later commits of the aggregate.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import structlog
from sqlalchemy import RowMapping, Table, select, text, tuple_

from runstream import tables
from runstream.commits import Position, StoredCommit
from runstream.database.connection import hang_up, lock_key
from runstream.database.database import Database
from runstream.database.freshness import Freshness, retry_channel_of
from runstream.database.transaction import Transaction
from runstream.errors import BadRequestError, ConflictError, InternalError, NotExistError
from runstream.events.skip import CommitSkipped
from runstream.feed import read_again, read_skip_decisions, read_skips, read_up_to
from runstream.glance import version_of
from runstream.log.port import Log, RawMessage, ReadableLog
from runstream.log.runs import head_of
from runstream.skips import hash_of, version_after
from runstream.subjects import CONFIG_KINDS, AggregateKind, aggregate_of, parse_subject, skip_address
from runstream.tables import PROJECTION, parked

LOCK_SECONDS = 60.0
FRESH_SECONDS = 5.0
"""Maximum wait of an export for the projection, in seconds, so that the last commits are known as parked."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ParkedCommit:
    """A commit that could not be read or applied."""

    position: Position
    subject: str
    aggregate: str
    reason: str
    at: datetime
    """Time of parking, in UTC."""


async def list_parked(
    transaction: Transaction, partition: int | None = None, epoch: int | None = None, *, projection: str = PROJECTION
) -> tuple[ParkedCommit, ...]:
    """List parked commits (of one partition, of one epoch, or all) in the order of the log."""
    listed = select(parked).where(parked.c.projection == projection)
    if partition is not None:
        listed = listed.where(parked.c.partition == partition)
    if epoch is not None:
        listed = listed.where(parked.c.epoch == epoch)
    rows = await transaction.rows(listed.order_by(parked.c.epoch, parked.c.partition, parked.c.sequence))
    return tuple(_parked_commit(row) for row in rows)


async def list_parked_after(
    transaction: Transaction, after: Position | None, limit: int, *, projection: str = PROJECTION
) -> tuple[ParkedCommit, ...]:
    """List the first parked commits behind a position, in the order of the log (the primary key)."""
    place = (after.epoch, after.partition, after.sequence) if after is not None else (0, -1, 0)
    order = (parked.c.epoch, parked.c.partition, parked.c.sequence)
    listed = select(parked).where(parked.c.projection == projection, tuple_(*order) > tuple_(*place))
    rows = await transaction.rows(listed.order_by(*order).limit(limit))
    return tuple(_parked_commit(row) for row in rows)


async def first_parked(
    transaction: Transaction, epoch: int, projection: str = PROJECTION
) -> list[tuple[ParkedCommit, int]]:
    """Return the first parked commit of each partition that has some, with their number."""
    rows = await transaction.rows(
        text(
            "SELECT DISTINCT ON (partition) epoch, partition, sequence, subject, aggregate, reason, at,"
            " count(*) OVER (PARTITION BY partition) AS count"
            " FROM parked WHERE projection = :projection AND epoch = :epoch ORDER BY partition, sequence"
        ),
        {"projection": projection, "epoch": epoch},
    )
    return [(_parked_commit(row), row["count"]) for row in rows]


def _parked_commit(row: RowMapping) -> ParkedCommit:
    position = Position(row["epoch"], row["partition"], row["sequence"])
    return ParkedCommit(position, row["subject"], row["aggregate"], row["reason"], row["at"])


@asynccontextmanager
async def parked_lock(database: Database, partition: int, projection: str = PROJECTION) -> AsyncIterator[None]:
    """Hold the lock on a partition's parked commits: no other process retries or skips them.

    This keeps a commit from being skipped while a scheduler applies it. Raises InternalError.
    """
    connection = await database.connect(watchful=True)
    try:
        key = lock_key(f"{database.schema}/{projection}/{partition}/parked")
        await connection.execute("SELECT pg_advisory_lock($1)", key, timeout=LOCK_SECONDS)
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        why = str(error) or f"another process held it for {LOCK_SECONDS:.0f} s"
        raise InternalError(
            f"cannot acquire the lock on the parked commits of partition {partition}: {why}",
            code="parkedBusy",
            hint="another process retries or skips them; try again in a moment",
        ) from error
    finally:
        await hang_up(connection)


async def request_retry(database: Database, positions: Sequence[Position] = ()) -> int:
    """Ask the owners of the partitions to retry parked commits (all, or these); return their number."""

    async def work(transaction: Transaction) -> int:
        asked = [one.position for one in await list_parked(transaction) if not positions or one.position in positions]
        for partition in sorted({position.partition for position in asked}):
            await transaction.rows(
                text("SELECT pg_notify(:channel, :partition)"),
                {"channel": retry_channel_of(database.schema), "partition": str(partition)},
            )
        return len(asked)

    return await database.transaction(work)


_TABLES: dict[AggregateKind, Table] = {
    "run": tables.runs,
    "task": tables.executor_tasks,
    "executor": tables.executors,
}


@dataclass(frozen=True, slots=True)
class SkipDecision:
    """A decision to skip a commit."""

    position: Position
    """Position of the decision in the log."""
    subject: str
    """The commit's subject behind the partition."""
    skipped: str
    """The commit's position at that time (EPOCH/PARTITION/SEQUENCE)."""
    version_after: int
    """Version of the aggregate."""
    by: str
    at: datetime
    reason: str
    sha256: str


async def skip_commit(
    log: Log, database: Database, position: Position, *, actor: str, reason: str, at: datetime
) -> Position:
    """Decide that a parked commit is never applied; return the position of the decision.

    Raises NotExistError when it is not parked (any more), ConflictError when an earlier one of its aggregate is parked,
    InternalError.
    """
    partition, projection = position.partition, log.subjects.service
    async with parked_lock(database, partition, projection):
        async with database.snapshot() as transaction:
            listed = await list_parked(transaction, partition, log.epoch, projection=projection)
            one = _first_of_its_aggregate(listed, position)
            before = await _version_of(transaction, one)
        if not before:
            before = (await read_skips(log, partition, await log.end(partition))).begun(one.aggregate)
        (message,) = await read_again(log, partition, [position.sequence])
        version = version_after(before, await _following(log, message))
        event = CommitSkipped(hash_of(message), before, version, str(position), reason)
        address = skip_address(partition, message.subject)
        head = head_of(await log.history(address))
        return await log.append(head.next_commit(address, (event,), time=at, actor=actor))


async def list_skip_decisions(log: ReadableLog) -> list[SkipDecision]:
    """List all skip decisions, in the order of each partition."""
    commits = [await read_skip_decisions(log, number, await log.end(number)) for number in range(log.partitions)]
    return [decision for decided in commits for stored in decided for decision in _decided(stored)]


async def skip_decision_of(log: Log, message: RawMessage) -> SkipDecision | None:
    """Return the skip decision about a commit; None without one."""
    history = await log.history(skip_address(message.position.partition, message.subject))
    found = [one for stored in history for one in _decided(stored) if one.sha256 == hash_of(message)]
    return found[-1] if found else None


def _decided(stored: StoredCommit) -> list[SkipDecision]:
    commit = stored.commit
    return [
        SkipDecision(
            stored.position,
            commit.address.id,
            event.position,
            event.version_after,
            commit.actor,
            commit.time,
            event.reason,
            event.sha256,
        )
        for event in commit.events
        if isinstance(event, CommitSkipped)
    ]


def not_parked(position: Position) -> NotExistError:
    """Return the error for a commit that is not parked."""
    return NotExistError(
        f"the commit at {position} is not parked",
        code="commitNotParked",
        details={"position": str(position)},
        hint="`runstream parked list` shows what is; `runstream events tail` shows every commit",
    )


def _first_of_its_aggregate(parked: Sequence[ParkedCommit], position: Position) -> ParkedCommit:
    found = next((one for one in parked if one.position == position), None)
    if found is None:
        raise not_parked(position)
    first = next(one for one in parked if one.aggregate == found.aggregate)
    if first.position != position:
        raise ConflictError(
            f"the commit at {position} waits behind the one at {first.position} of {found.aggregate}",
            code="parkedBehind",
            details={"position": str(position), "first": str(first.position)},
            hint=f"decide about {first.position} first: the commits behind it are then retried",
        )
    return found


async def _version_of(transaction: Transaction, one: ParkedCommit) -> int:
    """Return the version of the commit's aggregate in the rows; 0 when it has no row."""
    try:
        address = parse_subject(one.subject)
    except BadRequestError:
        return 0
    table = _TABLES.get(address.kind)
    if address.kind in CONFIG_KINDS:
        table, where = tables.config, (tables.config.c.kind == address.kind, tables.config.c.id == address.id)
    elif table is not None:
        where = (table.c.id == address.id, table.c.partition == address.partition)
    else:
        return 0
    row = await transaction.first(select(table.c.version).where(*where))
    return int(row["version"]) if row is not None else 0


async def _following(log: Log, message: RawMessage) -> int | None:
    """Return the version of the aggregate's next commit; None without a next commit or without a version."""
    at = message.position
    async with log.read(at.partition, at.sequence, filters=[message.subject]) as reader:
        following = await reader.next_batch(1, wait=False)
    return version_of(following[0]) if following else None


async def parked_at(source: ReadableLog, database: Database, positions: Sequence[int]) -> tuple[ParkedCommit, ...]:
    """Return the first parked commit of each aggregate as of these positions, one for each partition (0: none of it).

    Rows say what is parked now. A commit that a decision behind the position skips was parked as of it, so
    that decisions count as well. Empty, with a warning, when the database fails. Raises InternalError when the log
    fails.
    """
    try:
        found = await _listed(source.epoch, database, positions)
    except InternalError as error:
        log.warning(
            f"cannot read the parked commits from the database; if there are any, an import will refuse this snapshot: "
            f"{error.message}",
            action="export_parked_unknown",
        )
        return ()
    for decided in await list_skip_decisions(source):
        if decided.position.sequence > positions[decided.position.partition]:
            found += await _skipped_later(source, decided, positions[decided.position.partition])
    firsts: dict[tuple[int, str], ParkedCommit] = {}
    for one in sorted(found, key=lambda one: one.position):
        if one.position.sequence <= positions[one.position.partition]:
            firsts.setdefault((one.position.partition, aggregate_of(one.subject)), one)
    return tuple(firsts.values())


async def _listed(epoch: int, database: Database, positions: Sequence[int]) -> list[ParkedCommit]:
    """List the parked commits once the projection has reached the positions, or `FRESH_SECONDS` have passed."""
    freshness = Freshness(database)
    try:
        await freshness.start()
        wanted = [Position(epoch, partition, sequence) for partition, sequence in enumerate(positions) if sequence]
        await freshness.wait_for(*wanted, timeout=FRESH_SECONDS)
    except InternalError as error:
        log.warning(
            f"parked commits are known only up to the projection: {error.message}", action="export_parked_behind"
        )
    finally:
        await freshness.stop()
    async with database.snapshot() as transaction:
        return [*await list_parked(transaction, epoch=epoch)]


async def _skipped_later(source: ReadableLog, decided: SkipDecision, end: int) -> list[ParkedCommit]:
    """Return the commits up to `end` that the decision skips."""
    partition = decided.position.partition
    subject = f"{source.subjects.prefix(partition)}.{decided.subject}"
    reason = f"it was skipped later, at {decided.position}: {decided.reason}"
    return [
        ParkedCommit(message.position, subject, aggregate_of(subject), reason, decided.at)
        async for messages in read_up_to(source, partition, end, filters=[subject])
        for message in messages
        if await asyncio.to_thread(hash_of, message) == decided.sha256
    ]
