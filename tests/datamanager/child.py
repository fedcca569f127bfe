"""A process that archives a log until it is told to stop, or killed.

python -m tests.datamanager.child NATS DATABASE SCHEMA NAMESPACE FOLDER
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from runstream.database import Database
from runstream.datamanager.datamanager import DataManager
from runstream.datamanager.opening import LogPlace, prepare_log
from runstream.log.jetstream import open_log
from runstream.objects import PosixObjects
from tests.datamanager.place import PARTITIONS
from tests.log.servers import connected


async def main(nats_url: str, database_url: str, schema: str, namespace: str, folder: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    database, storage = Database(database_url, schema), PosixObjects(Path(folder))
    async with connected(nats_url) as nc:
        prepared = await prepare_log(LogPlace(nc, database, storage, namespace, "runs", PARTITIONS, 1))
        async with await open_log(nc, namespace) as log:
            one = DataManager(lambda: log, storage, database, prepared.deployment, close_seconds=0.0)
            await one.start()
            sys.stdout.write("started\n")
            sys.stdout.flush()
            await stop.wait()
            await one.stop()
    await database.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
