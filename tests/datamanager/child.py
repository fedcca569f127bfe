"""A process that restores a missing log and archives it, to be killed at some moment.

python -m tests.datamanager.child DEATH NATS DATABASE SCHEMA NAMESPACE STORAGE COMMITS

It ends when the archive has this many commits. With 0 it ends when the log is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from runstream.database import Database
from runstream.datamanager import compaction
from runstream.datamanager.datamanager import DataManager
from runstream.datamanager.startup import LogPlace, prepare_log
from runstream.log.jetstream import open_log
from runstream.objects import ObjectStorage, PosixObjects
from tests.chaos.dying import Death, watch
from tests.datamanager.place import PARTITIONS
from tests.log.servers import connected
from tests.objects.backends import open_at, s3_location

TIGHT = {"MERGE_FROM": 4, "MERGE": 3, "LIST_FROM": 4, "LIST": 2, "MAX_COMMITS": 40}
"""Segments are merged and listed after every few commits."""
CLOSE_SECONDS = 0.0


async def opened(storage: str) -> ObjectStorage:
    """The storage: a folder, or `s3 URL BUCKET`."""
    kind, _, place = storage.partition(" ")
    if kind != "s3":
        return PosixObjects(Path(storage))
    url, _, bucket = place.partition(" ")
    return await open_at(s3_location(url, bucket))


async def main(nats_url: str, database_url: str, schema: str, namespace: str, storage: str, commits: str) -> None:
    objects, database = await opened(storage), Database(database_url, schema)
    async with connected(nats_url) as nc:
        prepared = await prepare_log(LogPlace(nc, database, objects, namespace, "runs", PARTITIONS, 1))
        async with await open_log(nc, namespace) as log:
            one = DataManager(lambda: log, objects, database, prepared.deployment, close_seconds=CLOSE_SECONDS)
            if int(commits):
                await one.start()
                while sum(one.positions().values()) < int(commits):
                    await nc.flush()
                await one.stop()
    await database.close()


def tighten(change: Callable[[object, str, object], None] = setattr) -> None:
    """Have segments merged and listed as `TIGHT` says."""
    for name, value in TIGHT.items():
        change(compaction, name, value)
    change(compaction, "LIST_SEGMENTS", 6)


if __name__ == "__main__":
    requests = watch(msgspec.json.decode(sys.argv[1], type=Death))
    kind: Any = type(uvloop.run(opened(sys.argv[6])))
    requests.count_all(kind, "read", "write", "write_all", "delete")
    tighten()
    uvloop.run(main(*sys.argv[2:]))
