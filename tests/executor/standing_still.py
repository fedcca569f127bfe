"""An executor in a process of its own, with a lease in NATS and one task, for a test that stops the process.

    python -m tests.executor.standing_still FOLDER NATS-URL NAMESPACE LEASE-SECONDS SANDBOX COMMAND [ENGINE IMAGE]

It writes the task's folder; when the task has ended, its error, and then a line for each of its events.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from runstream.leases import open_leases
from tests.executor.rig import CONTAINERS, HOST, SETTINGS, pod, rig, run_step, task_of
from tests.log.servers import connected


async def main(
    folder: str, url: str, namespace: str, seconds: str, sandbox: str, command: str, engine: str = "", image: str = ""
) -> None:
    settings = replace(SETTINGS, sandbox=sandbox, engine=engine, **CONTAINERS)  # type: ignore[arg-type]
    async with connected(url) as nc:
        leases = await open_leases(nc, f"{namespace}_executors", seconds=int(seconds))
        async with rig(Path(folder), settings=settings, leases=leases) as it:
            task = await it.assign(task_of("task", run_step(command), runtime=pod(image) if image else HOST))
            print(it.task_folder(task), flush=True)  # noqa: T201
            ended = await task.ended()
            events = [type(event).__name__ for stored in task.history for event in stored.commit.events]
            print(ended.fail_error, *events, sep="\n")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
