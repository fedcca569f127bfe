"""How much the object storage holds of each kind, how much retention would remove now, and what it removes next."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, false, func, or_, select

from runstream import tables
from runstream.api import Cache, StorageStatus, StoredKind
from runstream.database.database import Database
from runstream.database.removals import ages_count_from
from runstream.domain.retention import EndedRun, Policy, next_retention
from runstream.log.port import Log
from runstream.objects import paths
from runstream.objects.port import ObjectStorage
from runstream.policies import Policies
from runstream.retention.caches import CachePolicy, surplus

MEASURE_AGAIN = timedelta(minutes=1)
"""Age of an answer after which the storage is always listed again: that takes a request for each thousand objects."""
MEASURE_SHARE = 20
"""An answer is kept for this many times as long as it took, so that listing takes a twentieth of the time."""
KINDS = ("runs", "logs", "indexes", "archives", "references", "caches", "log", "other")
_RUNS = tables.runs.c
_ENDED_AT = func.coalesce(_RUNS.end_time, _RUNS.enqueue_time)


@dataclass(frozen=True, slots=True)
class _Next:
    at: datetime | None
    root: str


_NEVER = _Next(None, "")


class StorageUse:
    """The use of an object storage."""

    def __init__(
        self,
        log: Log,
        objects: ObjectStorage,
        database: Database,
        policies: Policies,
        caches: CachePolicy,
        clock: Callable[[], datetime],
    ) -> None:
        self._log = log
        self._objects = objects
        self._database = database
        self._policies = policies
        self._caches = caches
        self._clock = clock
        self._measuring = asyncio.Lock()
        self._last: StorageStatus | None = None
        self._kept_until = clock()

    async def status(self) -> StorageStatus:
        """Return the use of the storage, measured within the last minute: now, where that takes no time."""
        async with self._measuring:
            begun = self._clock()
            if self._last is None or begun >= self._kept_until:
                self._last = await self._measured()
                ended = self._clock()
                self._kept_until = ended + min((ended - begun) * MEASURE_SHARE, MEASURE_AGAIN)
            return self._last

    async def _measured(self) -> StorageStatus:
        now = self._clock()
        objects: defaultdict[str, int] = defaultdict(int)
        sizes: defaultdict[str, int] = defaultdict(int)
        caches: list[Cache] = []
        async for found in self._objects.list():
            kind = kind_of(found.path)
            objects[kind] += 1
            sizes[kind] += found.size
            if kind == "caches" and self._caches:
                caches.append(Cache("", found.path, found.size, found.modified))
        ended, following, due = await self._of_runs(now)
        objects["runs"] = ended
        due["caches"] = len(surplus(caches, self._caches, now))
        if caches and self._caches.age is not None:
            following["caches"] = _Next(min(cache.created for cache in caches) + self._caches.age, "")
        kinds: list[StoredKind] = []
        for kind in KINDS:
            if objects[kind]:
                first = following.get(kind, _NEVER)
                size = None if kind == "runs" else sizes[kind]
                kinds.append(StoredKind(kind, objects[kind], size, first.at, first.root, due.get(kind, 0)))
        return StorageStatus(now, tuple(kinds))

    async def _of_runs(self, now: datetime) -> tuple[int, dict[str, _Next], dict[str, int]]:
        """Return the number of ended runs; when retention removes the next run, log and archive; and how many now."""
        since = await ages_count_from(self._database, self._log.subjects.service, self._log.epoch)
        roots = (
            select(
                _RUNS.counter_group.label("root"),
                func.count().label("ended"),
                func.min(_ENDED_AT).label("runs"),
                func.min(_ENDED_AT).filter(_RUNS.holds_logs).label("logs"),
                func.min(_ENDED_AT).filter(_RUNS.holds_archives).label("archives"),
            )
            .where(_RUNS.archived)
            .group_by(_RUNS.counter_group)
        )
        async with self._database.snapshot() as transaction:
            rows = await transaction.rows(roots)
        following: dict[str, _Next] = {}
        due: Counter[str] = Counter()
        for row in rows:
            policy, is_due = self._policies.of(row["root"]), False
            only = {"runs": Policy(runs=policy.runs), "logs": Policy(logs=policy.logs)}
            for kind, one in (only | {"archives": Policy(archives=policy.archives)}).items():
                if row[kind] is None:
                    continue
                at = next_retention(EndedRun(row[kind], False, True, True), one, since)
                if kind == "runs" and policy.keep is not None and row["ended"] > policy.keep:
                    at = now
                if at is None:
                    continue
                is_due = is_due or at <= now
                first = following.get(kind, _NEVER).at
                if first is None or at < first:
                    following[kind] = _Next(at, row["root"])
            if is_due:
                due.update(await self._due(row["root"], policy, since, now))
        return sum(row["ended"] for row in rows), following, due

    async def _due(self, root: str, policy: Policy, since: datetime, now: datetime) -> dict[str, int]:
        """Return how many runs of a root retention would remove now, and of how many the logs and archives."""
        later = func.row_number().over(order_by=_RUNS.counter.desc())
        ended = (
            select(_ENDED_AT.label("at"), later.label("rank"), _RUNS.holds_logs, _RUNS.holds_archives)
            .where(_RUNS.archived, _RUNS.counter_group == root)
            .subquery()
        )

        def older(age: timedelta | None) -> ColumnElement[bool]:
            return ended.c.at <= now - age if age is not None and since + age <= now else false()

        gone = or_(older(policy.runs), ended.c.rank > policy.keep if policy.keep is not None else false())
        counts = select(
            func.count().filter(gone).label("runs"),
            func.count().filter(ended.c.holds_logs, or_(gone, older(policy.logs))).label("logs"),
            func.count().filter(ended.c.holds_archives, or_(gone, older(policy.archives))).label("archives"),
        ).select_from(ended)
        async with self._database.snapshot() as transaction:
            (found,) = await transaction.rows(counts)
        return dict(found)


def kind_of(path: str) -> str:
    """Return the kind of an object, by its path."""
    match path.split("/"):
        case [paths.LOGS, _, "data", *_]:
            return "indexes" if path.endswith(".index") else "logs"
        case [paths.ARCHIVES, _, "data", *_]:
            return "archives"
        case [paths.LOGS | paths.ARCHIVES, _, "runs", _]:
            return "references"
        case [paths.CACHES, *_]:
            return "caches"
        case ["archive", *_]:
            return "log"
        case _:
            return "other"
