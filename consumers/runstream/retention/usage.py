"""How much the object storage holds of each kind, and what retention removes next."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select

from runstream import tables
from runstream.api import StorageStatus, StoredKind
from runstream.database.database import Database
from runstream.database.removals import ages_count_from
from runstream.domain.retention import EndedRun, Policy, next_retention
from runstream.log.port import Log
from runstream.objects import paths
from runstream.objects.port import ObjectStorage
from runstream.policies import Policies
from runstream.retention.caches import CachePolicy

MEASURE_AGAIN = timedelta(minutes=1)
"""Age of an answer after which the storage is always listed again: that takes a request for each thousand objects."""
MEASURE_SHARE = 20
"""An answer is kept for this many times as long as it took, so that listing takes a twentieth of the time."""
KINDS = ("runs", "logs", "indexes", "archives", "references", "caches", "log", "other")
_NONE = Policy()


@dataclass(frozen=True, slots=True)
class _Next:
    at: datetime
    root: str


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
        oldest_cache: datetime | None = None
        async for found in self._objects.list():
            kind = kind_of(found.path)
            objects[kind] += 1
            sizes[kind] += found.size
            if kind == "caches" and (oldest_cache is None or found.modified < oldest_cache):
                oldest_cache = found.modified
        ended, following = await self._next_of_runs(now)
        objects["runs"] = ended
        if oldest_cache is not None and self._caches.age is not None:
            following["caches"] = _Next(oldest_cache + self._caches.age, "")
        shown = [kind for kind in KINDS if objects[kind]]
        return StorageStatus(now, tuple(self._kind(kind, objects, sizes, following.get(kind)) for kind in shown))

    @staticmethod
    def _kind(kind: str, objects: dict[str, int], sizes: dict[str, int], following: _Next | None) -> StoredKind:
        at, root = (following.at, following.root) if following is not None else (None, "")
        return StoredKind(kind, objects[kind], None if kind == "runs" else sizes[kind], at, root)

    async def _next_of_runs(self, now: datetime) -> tuple[int, dict[str, _Next]]:
        """Return the number of ended runs, and when retention removes the next run, log and archive."""
        since = await ages_count_from(self._database, self._log.subjects.service, self._log.epoch)
        runs = tables.runs.c
        ended_at = func.coalesce(runs.end_time, runs.enqueue_time)
        roots = (
            select(
                runs.counter_group.label("root"),
                func.count().label("ended"),
                func.min(ended_at).label("runs"),
                func.min(ended_at).filter(runs.holds_logs).label("logs"),
                func.min(ended_at).filter(runs.holds_archives).label("archives"),
            )
            .where(runs.archived)
            .group_by(runs.counter_group)
        )
        async with self._database.snapshot() as transaction:
            rows = await transaction.rows(roots)
        following: dict[str, _Next] = {}
        for row in rows:
            policy = self._policies.of(row["root"])
            only = {"runs": Policy(runs=policy.runs), "logs": Policy(logs=policy.logs)}
            for kind, one in (only | {"archives": Policy(archives=policy.archives)}).items():
                if row[kind] is None:
                    continue
                at = next_retention(EndedRun(row[kind], False, True, True), one, since)
                if kind == "runs" and policy.keep is not None and row["ended"] > policy.keep:
                    at = now
                if at is not None and (kind not in following or at < following[kind].at):
                    following[kind] = _Next(at, row["root"])
        return sum(row["ended"] for row in rows), following


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
