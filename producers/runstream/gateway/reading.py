"""The projection, read: fresh enough for whoever asks, and never behind what the log says exists."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from runstream.commits import Position
from runstream.counting import counted
from runstream.database import Database, Transaction
from runstream.database.freshness import Freshness
from runstream.database.runs import (
    ExecutorRecord,
    RunPage,
    RunQuery,
    RunRecord,
    get_run,
    get_run_by_counter,
    get_run_config,
    list_executors,
    list_runs,
)
from runstream.errors import BadRequestError, NotExistError
from runstream.events.run_config import RunConfig
from runstream.gateway.locating import locate_run
from runstream.gateway.ports import ReadRun
from runstream.log.port import Log

T = TypeVar("T")

FRESH_SECONDS = 5.0
"""How long a read waits for the projection."""
_CONFIGS = 512


class DatabaseReads:
    """What the projection tells (see `runstream.gateway.ports.Reads`)."""

    def __init__(self, database: Database, freshness: Freshness, log: Log) -> None:
        self._database = database
        self._freshness = freshness
        self._log = log
        self._configs: OrderedDict[tuple[int, str], RunConfig] = OrderedDict()
        """Run configs never change: those used last are kept."""

    async def run(self, run_id: str, at_least: Sequence[Position]) -> ReadRun:
        """One run; one that was created a moment ago is waited for. Raises NotExistError."""
        try:
            return await self._run(lambda transaction: get_run(transaction, run_id), at_least)
        except NotExistError:
            address = await locate_run(self._log, run_id)
        last = await self._log.last(address)
        return await self._run(lambda transaction: get_run(transaction, run_id), [last.position] if last else [])

    async def run_by_counter(self, group: str, counter: int, at_least: Sequence[Position]) -> ReadRun:
        """The run of this number in the group. Raises NotExistError."""
        return await self._run(lambda transaction: get_run_by_counter(transaction, group, counter), at_least)

    async def runs(self, query: RunQuery, at_least: Sequence[Position]) -> RunPage:
        """A page of runs."""
        return await self._read(lambda transaction: list_runs(transaction, query), at_least)

    async def executors(self, at_least: Sequence[Position]) -> tuple[ExecutorRecord, ...]:
        """All executors that were not deleted."""
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
                f"position {position.epoch}/{position.partition}/{position.sequence} is not one of this log",
                code="invalidPosition",
                hint=f"it has {counted(self._log.partitions, 'partition')} and is in epoch {self._log.epoch}",
            )
        if position.epoch < self._log.epoch or self._freshness.includes(position):
            return
        if position.sequence > (end := await self._log.end(position.partition)):
            raise BadRequestError(
                f"position {position.epoch}/{position.partition}/{position.sequence} is ahead of the log, which ends "
                f"at {end} there",
                code="invalidPosition",
                hint="give a position as an answer of this service had it",
            )

    async def _config(self, transaction: Transaction, record: RunRecord) -> RunConfig:
        key = (record.partition, record.run.run_config)
        config = self._configs.get(key)
        if config is None:
            config = await get_run_config(transaction, *key)
            self._configs[key] = config
            if len(self._configs) > _CONFIGS:
                self._configs.popitem(last=False)
        else:
            self._configs.move_to_end(key)
        return config
