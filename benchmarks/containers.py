"""(j) Tasks in containers, beside `docker run --rm` of the same image by hand, and lines written in a container.

An engine of its own is started, without a network bridge: that needs dockerd, and root.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.docker_engine import GIT_IMAGE, IMAGE, DockerEngine, missing

from benchmarks import files
from benchmarks.figures import Figures, percentile
from benchmarks.standing import Deployment
from benchmarks.workloads import Workload
from runstream.client import Client, NewRun

TIMES_AIM = 1.5
"""How many times as long as `docker run --rm` a run may take."""
AT_ONCE = 5
"""Runs of a repetition, one after the other; a repetition is their median."""
NO_OP = Workload("container", (("true",),), IMAGE)

__all__ = ["measure", "missing", "started"]


@contextlib.asynccontextmanager
async def started(folder: Path | None) -> AsyncIterator[tuple[DockerEngine, Path]]:
    """An engine, and the settings of an executor that uses it."""
    with tempfile.TemporaryDirectory(prefix="runstream-engine-", dir=folder) as made:
        engine = DockerEngine(Path(made) / "e")
        settings = Path(made) / "settings.yml"
        settings.write_text(f"executor: {{engine: 'unix://{made}/e/s', pull_policy: missing, pod_network: none}}\n")
        await engine.start()
        try:
            yield engine, settings
        finally:
            await engine.end_leftover()


async def measure(deployment: Deployment, engine: DockerEngine, figures: Figures, repetitions: int) -> None:
    """Run containers by hand and as tasks by turns; follow a step that prints the time."""
    ours, theirs, times, latencies = [], [], [], []
    async with Client(deployment.url, token=deployment.token) as client:
        await _seconds(client, engine)  # unpacks what every container gets, once
        for _ in range(repetitions):
            runs, bare = [], []
            for _ in range(AT_ONCE):
                runs.append(await _seconds(client, engine))
                begun = time.perf_counter()
                await asyncio.to_thread(engine.cli, "run", "--rm", "--network=none", "--init", IMAGE, "true")
                bare.append(time.perf_counter() - begun)
            ours.append(statistics.median(runs) * 1000)
            theirs.append(statistics.median(bare) * 1000)
            times.append(ours[-1] / theirs[-1])
            latencies.append(percentile(await files.latencies(client, GIT_IMAGE), 50))
    figures.add("j", "docker run --rm", "ms", theirs, better="less", limit=True)
    figures.add("j", "a run of one container, from creation to its end", "ms", ours, better="less")
    figures.add("j", "the same, times docker run --rm", "", times, aim=TIMES_AIM, better="less")
    aim = files.FOLLOWER_AIM
    figures.add("j", "from a line written in a container to a follower: p50", "ms", latencies, aim=aim, better="less")


async def _seconds(client: Client, engine: DockerEngine) -> float:
    """Seconds of a run whose step does nothing; returns when its containers are removed."""
    run = await client.runs.create(NewRun(NO_OP.group(0), NO_OP.name, NO_OP.tasks()))
    async for commit in client.events.tail("start", run=run.id):
        run = await client.runs.get(run.id, at_least=commit.position)
        if run.finished:
            break
    assert run.result == "success", run
    assert run.end_time is not None
    for _ in range(200):
        if not await asyncio.to_thread(engine.containers):
            break
        await asyncio.sleep(0.05)
    return (run.end_time - run.enqueue_time).total_seconds()
