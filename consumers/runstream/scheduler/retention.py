"""Retention in one partition: its owner decides which ended runs go, and appends that as events of these runs.

Each group root is looked at when its next run is due by age, or when another of its runs has ended. The times are in
memory only; a worker that takes the partition over looks at every root once. A decision rests on the row of the run and
carries its expected sequence, so one that comes late is refused by the log. The rows follow from the events, as ever;
the cleaner (`runstream.retention.cleaner`) removes the objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import RowMapping, Select, func, select

from runstream import tables
from runstream.commits import Head, NewCommit
from runstream.counting import counted
from runstream.database.database import Database
from runstream.database.removals import ages_count_from
from runstream.domain.retention import EndedRun, Policy, decide_retention, next_retention
from runstream.errors import InternalError
from runstream.ids import commit_id
from runstream.lifecycle import wait_for_event
from runstream.log.port import AppendConflictError, Log
from runstream.policies import Policies
from runstream.projections.fold import Changes
from runstream.scheduler.decisions import ACTOR
from runstream.scheduler.fair_queue import PriorityMap
from runstream.subjects import Address, group_root

LIMIT = 500
"""Runs decided at once."""
GATHER = timedelta(seconds=1)
"""Time over which ended runs of a group root are gathered before they are counted."""
NAP_SECONDS = 30.0
"""The longest sleep: a clock that was set, or a suspended machine, is noticed after it."""
RETRY_SECONDS = 5.0
logger = structlog.get_logger(__name__)

_RUNS = tables.runs.c
_ENDED_AT = func.coalesce(_RUNS.end_time, _RUNS.enqueue_time)


class Retention:
    """The retention of one partition."""

    def __init__(
        self, partition: int, log: Log, database: Database, policies: Policies, clock: Callable[[], datetime]
    ) -> None:
        self._partition = partition
        self._log = log
        self._database = database
        self._policies = policies
        self._clock = clock
        self._due: PriorityMap[datetime] = PriorityMap()
        self._times: dict[str, datetime] = {}
        """By group root: when to look at it."""
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._projected = 0
        self._moved = asyncio.Event()
        """Set with each projected batch, and then replaced."""

    async def run(self) -> None:
        """Decide what is due until cancelled."""
        if not self._policies:
            await asyncio.Event().wait()
        since = await self._since()
        while True:
            await self._something_due()
            while self._due.first is not None and self._due.first[0] <= self._clock():
                root = self._due.first[1]
                self._set(root, None)
                try:
                    async with self._turn:
                        await self._look_at(root, since)
                except InternalError as error:
                    logger.warning("Retention waits", action="retention_waits", root=root, error=str(error))
                    self._sooner(root, self._clock() + timedelta(seconds=RETRY_SECONDS))

    async def drain(self) -> None:
        """Decide nothing more."""
        await self._turn.acquire()

    def projected(self, changes: Changes) -> None:
        """Note the runs that have ended, now that their rows show it."""
        self._projected = changes.after
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        if not self._policies:
            return
        for changed in changes.runs.values():
            run, before = changed.now.state, changed.before
            if run.archived and run.deleted_at is None and not (before is not None and before.state.archived):
                policy = self._policies.of(root := group_root(run.group))
                ended = EndedRun(run.end_time or run.enqueue_time, False, run.holds_logs, run.holds_archives)
                at = self._clock() + GATHER if policy.keep else next_retention(ended, policy, ended.ended_at)
                if at is not None:
                    self._sooner(root, at)

    async def _since(self) -> datetime:
        """Return when ages begin to count; look at every root once."""
        since = await ages_count_from(self._database, self._log.subjects.service, self._log.epoch)
        async with self._database.snapshot() as transaction:
            counters = tables.counters.c
            roots = await transaction.rows(select(counters.root).where(counters.partition == self._partition))
        now = self._clock()
        for root in roots:
            self._sooner(root["root"], now)
        return since

    async def _something_due(self) -> None:
        while (first := self._due.first) is None or first[0] > self._clock():
            left = None if first is None else (first[0] - self._clock()).total_seconds()
            await wait_for_event(self._changed, None if left is None else min(max(left, 0.0), NAP_SECONDS))
            self._changed.clear()

    def _sooner(self, root: str, at: datetime) -> None:
        if root not in self._times or at < self._times[root]:
            self._set(root, at)

    def _set(self, root: str, at: datetime | None) -> None:
        self._due.set(root, at)
        if at is None:
            self._times.pop(root, None)
        else:
            self._times[root] = at
            self._changed.set()

    async def _look_at(self, root: str, since: datetime) -> None:
        policy, now = self._policies.of(root), self._clock()
        if not policy:
            return
        commits, full, following = await self._decisions(root, policy, since, now)
        reached: list[int] = []
        if commits:
            answers = await self._log.append_all(commits)
            reached = [answer.sequence for answer in answers if not isinstance(answer, AppendConflictError)]
            logger.info(
                f"Retention decided about {counted(len(reached), 'run')} of {root}",
                action="retention_decided",
                root=root,
                runs=len(reached),
            )
            await self._until_projected(max(reached, default=0))
        if full:  # where none was accepted, the rows are behind
            self._sooner(root, now if reached else now + timedelta(seconds=RETRY_SECONDS))
        elif following is not None:
            self._sooner(root, max(following, now + GATHER) if commits else following)

    async def _until_projected(self, sequence: int) -> None:
        """Wait until the rows show these decisions, so that none is made twice."""
        while self._projected < sequence:
            await self._moved.wait()

    async def _decisions(
        self, root: str, policy: Policy, since: datetime, now: datetime
    ) -> tuple[list[NewCommit], bool, datetime | None]:
        """Return what is due, whether there may be more, and when the next run is due by age."""
        full = False
        found: dict[str, tuple[RowMapping, bool]] = {}
        following: list[datetime] = []
        async with self._database.snapshot() as transaction:
            for query in self._queries(root, policy, since, now):
                rows = await transaction.rows(query)
                full = full or len(rows) == LIMIT
                for row in rows:
                    found.setdefault(row["id"], (row, False))
            if policy.keep is not None:
                surplus = self._ended(root).order_by(_RUNS.counter.desc()).offset(policy.keep)  # runs_by_counter
                rows = await transaction.rows(surplus.limit(LIMIT))
                full = full or len(rows) == LIMIT
                found |= {row["id"]: (row, True) for row in rows}
            for query in self._oldest(root, policy):
                later = [row for row in await transaction.rows(query) if row["id"] not in found]
                following += [at for row in later if (at := next_retention(_ended(row), policy, since)) is not None]
        commits = [
            self._commit(row, events, now)
            for row, is_surplus in found.values()
            if (events := decide_retention(_ended(row, surplus=is_surplus), policy, since, now))
        ]
        return commits, full and bool(commits), min(following, default=None)

    def _ended(self, root: str) -> Select[Any]:
        columns = (_RUNS.id, _RUNS.version, _RUNS.position, _RUNS.holds_logs, _RUNS.holds_archives)
        return select(*columns, _ENDED_AT.label("ended_at")).where(
            _RUNS.partition == self._partition, _RUNS.counter_group == root, _RUNS.archived
        )

    def _queries(self, root: str, policy: Policy, since: datetime, now: datetime) -> list[Select[Any]]:
        """Return queries for the oldest runs that are due by age (runs_ended, runs_holding_logs …)."""
        ended = self._ended(root).order_by(_ENDED_AT).limit(LIMIT)
        wanted = ((policy.runs, ended), (policy.logs, ended.where(_RUNS.holds_logs)))
        return [
            query.where(now - age >= _ENDED_AT)
            for age, query in (*wanted, (policy.archives, ended.where(_RUNS.holds_archives)))
            if age is not None and since + age <= now
        ]

    def _oldest(self, root: str, policy: Policy) -> Sequence[Select[Any]]:
        """Return queries for the runs that may be due next, each with those that are due now before them."""
        ended = self._ended(root).order_by(_ENDED_AT).limit(LIMIT + 1)
        wanted = ((policy.runs, ended), (policy.logs, ended.where(_RUNS.holds_logs)))
        more = (policy.archives, ended.where(_RUNS.holds_archives))
        return [query for age, query in (*wanted, more) if age is not None]

    def _commit(self, row: RowMapping, events: Sequence[Any], now: datetime) -> NewCommit:
        address = Address(self._partition, "run", row["id"])
        head, cause = Head(row["version"], row["position"]), f"retention:{row['id']}"
        identity = commit_id(cause, address.aggregate, head.version + 1, repr(events))
        return head.next_commit(address, events, time=now, actor=ACTOR, cause=cause, identity=identity)


def _ended(row: RowMapping, *, surplus: bool = False) -> EndedRun:
    return EndedRun(row["ended_at"], surplus, row["holds_logs"], row["holds_archives"])
