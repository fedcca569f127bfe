"""Measure a task with one container and a step that does nothing, beside `docker run --rm` of the same image.

`python -m benchmarks.containers [COUNT]` starts an engine of its own, so it needs dockerd, and root.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import structlog
from tests.docker_engine import IMAGE, DockerEngine
from tests.executor.rig import CONTAINERS, SETTINGS, pod, rig, run_step, task_of


async def measure(count: int) -> None:
    """Print the medians, in seconds."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(prefix="runstream-") as folder:
        engine = DockerEngine(Path(folder) / "engine")
        await engine.start()
        try:
            settings = replace(SETTINGS, engine=engine.url, **CONTAINERS)
            async with rig(Path(folder) / "executor", settings=settings) as running:
                for _ in range(count):
                    begun = time.perf_counter()
                    watched = await running.assign(task_of("task", run_step("true"), runtime=pod(IMAGE)))
                    await watched.ended()
                    ours.append(time.perf_counter() - begun)
                    await asyncio.sleep(0.5)  # its containers are removed meanwhile
                    begun = time.perf_counter()
                    await asyncio.to_thread(engine.cli, "run", "--rm", "--network=none", "--init", IMAGE, "true")
                    theirs.append(time.perf_counter() - begun)
        finally:
            await engine.end_leftover()
    for name, seconds in (("task", ours), ("docker run --rm", theirs)):
        print(f"{name:16} {statistics.median(seconds):.3f} s")


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
