"""Reads of the projection, fresh enough for the request and never behind a run that the log has; cursors of lists.

A cursor says where the next page begins, and which runs the list is of. It is opaque to clients."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

import msgspec
from cachetools import LRUCache

from runstream.api import FlakyList
from runstream.commits import LogPosition, Position
from runstream.counting import counted
from runstream.database import Database, Transaction
from runstream.database.flaky import list_flaky
from runstream.database.freshness import Freshness
from runstream.database.run_lists import RunPage, RunQuery, list_runs
from runstream.database.runs import (
    ExecutorRecord,
    ReadRun,
    RunMoment,
    RunRecord,
    get_deleted_run,
    get_run,
    get_run_by_counter,
    get_run_config,
    list_executors,
)
from runstream.errors import BadRequestError, NotExistError
from runstream.events.run_config import RunConfig
from runstream.log.port import Log
from runstream.log.runs import locate_run, require_not_deleted


class ReadHistory(Protocol):
    """The history of one run up to now, and on from there."""

    partition: int

    @property
    def count(self) -> int:
        """The number of commits read so far."""

    def number_of(self, position: Position) -> int | None:
        """Return the number of the commit at a position, from 1; None for the position of another commit."""

    def moments(self) -> Iterator[RunMoment]:
        """Yield the run as each of the commits read so far left it, from the first one on."""

    def following(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[list[RunMoment]]]]:
        """Follow the run behind `moments`: each call waits for the next commits, at least one."""


class PastRuns(Protocol):
    """Runs as they were at earlier points of the log."""

    async def history(self, run_id: str) -> ReadHistory:
        """Return the history of a run, also of a deleted one. Raises NotExistError."""

    async def run(self, run_id: str, point: LogPosition | Position | datetime) -> ReadRun:
        """Return the run as it was. Raises NotExistError, BadRequestError for a point that is not in this log."""


class Reads(Protocol):
    """Reads of the projection; each waits, bounded, until the projection includes `at_least`."""

    async def run(self, run_id: str, at_least: Sequence[Position]) -> ReadRun:
        """Return one run. Raises NotExistError."""

    async def run_by_counter(self, group: str, counter: int, at_least: Sequence[Position]) -> ReadRun:
        """Return the run of this number in the group. Raises NotExistError."""

    async def runs(
        self, query: RunQuery, at_least: Sequence[Position], *, counts: bool = False, tasks: bool = False
    ) -> RunPage:
        """Return a page of runs, if asked for with the counts of its list and of the tasks of its runs."""

    async def flaky(self, groups: Sequence[str], at_least: Sequence[Position]) -> FlakyList:
        """Return the flaky tasks of these groups, or of all."""

    async def executors(self, at_least: Sequence[Position]) -> tuple[ExecutorRecord, ...]:
        """Return all executors that are not deleted."""


T = TypeVar("T")

FRESH_SECONDS = 5.0
"""Maximum wait of a read for the projection, in seconds."""
_CONFIGS = 512


class DatabaseReads:
    """Reads of the projection in Postgres (see `Reads`)."""

    def __init__(self, database: Database, freshness: Freshness, log: Log) -> None:
        self._database = database
        self._freshness = freshness
        self._log = log
        self._configs: LRUCache[tuple[int, str], RunConfig] = LRUCache(_CONFIGS)
        """The run configs used last; they never change."""

    async def run(self, run_id: str, at_least: Sequence[Position]) -> ReadRun:
        """Return one run; wait for one that was created a moment ago. Raises NotExistError, also for a deleted run."""
        try:
            return await self._run(lambda transaction: get_run(transaction, run_id), at_least)
        except NotExistError:
            address = await locate_run(self._log, run_id)
        await require_not_deleted(self._log, address)
        last = await self._log.last(address)
        return await self._run(lambda transaction: get_run(transaction, run_id), [last.position] if last else [])

    async def run_by_counter(self, group: str, counter: int, at_least: Sequence[Position]) -> ReadRun:
        """Return the run of this number in the group. Raises NotExistError, which tells a deleted run from none."""
        try:
            return await self._run(lambda transaction: get_run_by_counter(transaction, group, counter), at_least)
        except NotExistError:
            run_id = await self._read(lambda transaction: get_deleted_run(transaction, group, counter), ())
            if run_id is not None:
                await require_not_deleted(self._log, await locate_run(self._log, run_id))
            raise

    async def runs(
        self, query: RunQuery, at_least: Sequence[Position], *, counts: bool = False, tasks: bool = False
    ) -> RunPage:
        """Return a page of runs, if asked for with the counts of its list and of the tasks of its runs."""
        return await self._read(lambda transaction: list_runs(transaction, query, counts=counts, tasks=tasks), at_least)

    async def flaky(self, groups: Sequence[str], at_least: Sequence[Position]) -> FlakyList:
        """Return the flaky tasks of these groups, or of all."""
        return await self._read(lambda transaction: list_flaky(transaction, groups), at_least)

    async def executors(self, at_least: Sequence[Position]) -> tuple[ExecutorRecord, ...]:
        """Return all executors that are not deleted."""
        return await self._read(list_executors, at_least)

    async def _run(self, find: Callable[[Transaction], Awaitable[RunRecord]], at_least: Sequence[Position]) -> ReadRun:
        async def with_config(transaction: Transaction) -> ReadRun:
            record = await find(transaction)
            return ReadRun(record, await self._config(transaction, record))

        return await self._read(with_config, at_least)

    async def _read(self, ask: Callable[[Transaction], Awaitable[T]], at_least: Sequence[Position]) -> T:
        if at_least:
            for position in at_least:
                await self._require_ours(position)
            await self._freshness.wait_for(*at_least, timeout=FRESH_SECONDS)
        async with self._database.snapshot() as transaction:
            return await ask(transaction)

    async def _require_ours(self, position: Position) -> None:
        if position.partition >= self._log.partitions or position.epoch > self._log.epoch:
            raise BadRequestError(
                f"position {position} is not one of this log",
                code="invalidPosition",
                hint=f"it has {counted(self._log.partitions, 'partition')} and is in epoch {self._log.epoch}",
            )
        if position.epoch < self._log.epoch or self._freshness.includes(position):
            return
        if position.sequence > (end := await self._log.end(position.partition)):
            raise BadRequestError(
                f"position {position} is ahead of the log, which ends at {end} there",
                code="invalidPosition",
                hint="give a position that a response of this service had",
            )

    async def _config(self, transaction: Transaction, record: RunRecord) -> RunConfig:
        key = (record.partition, record.run.run_config)
        config = self._configs.get(key)
        if config is None:
            config = self._configs[key] = await get_run_config(transaction, *key)
        return config


def next_cursor(query: RunQuery, page: RunPage) -> str:
    """Return the cursor of the next page; empty when this is the last."""
    if page.next_start is None:
        return ""
    default = RunQuery()
    there = asdict(replace(query, start=page.next_start, start_counter=0, limit=default.limit))
    fields = {name: value for name, value in there.items() if value != getattr(default, name)}
    return base64.urlsafe_b64encode(msgspec.json.encode(fields)).decode()


def decode_cursor(cursor: str, given: RunQuery) -> RunQuery:
    """Return a cursor's query with the limit of the request, which may give nothing else. Raises BadRequestError."""
    if replace(given, limit=1, groups=()) != RunQuery(limit=1):
        raise cursor_with_parameters()
    try:
        content = msgspec.json.decode(base64.b64decode(cursor, altchars=b"-_", validate=True), type=dict[str, Any])
        found = msgspec.convert(content, RunQuery)
        if "start" not in content or content.keys() - RunQuery.__dataclass_fields__.keys():
            raise ValueError("it belongs to another list")
        if not 0 <= found.start < 1 << 63 or (given.groups and found.groups != given.groups):
            raise ValueError("it belongs to another list")
    except (ValueError, RecursionError) as error:
        raise BadRequestError(
            f"{cursor[:80]!r} is not a cursor of this list",
            code="invalidCursor",
            hint="take it from the header X-Agola-Cursor, or the field cursor, of the page before",
        ) from error
    return replace(found, start_counter=0, limit=given.limit)


def cursor_with_parameters() -> BadRequestError:
    """Return the error for a cursor beside parameters that it includes."""
    return BadRequestError(
        "a cursor can be combined only with limit",
        code="invalidCursor",
        hint="the cursor includes which runs the list is of, and their order",
    )
