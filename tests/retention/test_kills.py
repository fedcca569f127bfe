"""Runs and restarts come in while retention removes earlier ones, and one of two cleaners is killed again and again.

Nothing that a run refers to is lost, and everything else is gone. `make retention` has 10,000 runs and 20 kills.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest

from runstream.events.executor_task import (
    ExecutorTaskArchiveStored,
    ExecutorTaskEvent,
    ExecutorTaskFinished,
    ExecutorTaskLogStored,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
)
from runstream.executor.drivers.noop import NoopRunner
from runstream.executor.executor import TaskExecutor
from runstream.executor.task import Ended, Job
from runstream.executor.workdir import ExecutorPlace
from runstream.ids import attempt_id
from runstream.jetstream.connection import nats_connection
from runstream.leases import open_leases
from runstream.log.jetstream import open_log
from runstream.objects import PosixObjects, paths
from runstream.settings import ExecutorSettings
from tests.acceptance.deployment import TOKEN, Deployment, servers
from tests.acceptance.load import step
from tests.chaos.kills import Chaos, say

RUNS = int(os.environ.get("RUNSTREAM_TEST_RUNS", "60"))
"""Half of them are restarts of others."""
CLEANERS = ("cleaner0", "cleaner1")
PROJECTS, BRANCHES, KEEP = 4, 6, 6
SETTINGS = f"retention: {{runs: {{keep: {KEEP}}}}}\n"
SAVE = {"type": "save_to_workspace", "contents": [{"paths": ["**"]}]}
TASKS = {
    "b": {"name": "build", "runtime": {"type": "host"}, "steps": [step("true"), SAVE]},
    "t": {
        "name": "test",
        "runtime": {"type": "host"},
        "steps": [step("true")],
        "depends": {"b": {"task_id": "b", "conditions": ["on_success"]}},
    },
}


class StoringRunner(NoopRunner):
    """A runner whose tasks take no time and leave a log of each step, and the build an archive."""

    def __init__(self, objects: PosixObjects) -> None:
        self._objects = objects

    async def run(self, job: Job) -> Ended:
        """Store what the task leaves, and report success."""
        task, at, success = job.task, job.clock(), ExecutorTaskPhase.SUCCESS
        stored = attempt_id(task.run_task_id, task.attempt)
        contents = dict.fromkeys(of_task(stored, task.task), b"")
        contents[paths.log_reference(stored, task.run_id)] = b""
        events: list[ExecutorTaskEvent] = [ExecutorTaskSetupFinished(at, success), ExecutorTaskLogStored(None)]
        for number in range(len(task.steps)):
            events += [ExecutorTaskStepStarted(number, at), ExecutorTaskStepFinished(number, at, success, 0)]
            events.append(ExecutorTaskLogStored(number))
        if task.task == "build":
            contents[paths.archive_reference(stored, task.run_id)] = b""
            events.append(ExecutorTaskArchiveStored(1, ()))
        await self._objects.write_all(contents)
        return Ended((*events, ExecutorTaskFinished(at, success, "")))


def of_task(stored: str, name: str) -> set[str]:
    """The paths of what a task leaves."""
    logs = {paths.step_log(stored, number) for number in (None, 0)}
    return logs | {paths.step_log(stored, 1), paths.archive(stored, 1)} if name == "build" else logs


@dataclass
class Load:
    """Runs and restarts, published over HTTP."""

    http: httpx2.AsyncClient
    random: Random
    runs: dict[int, list[str]] = field(default_factory=lambda: {project: [] for project in range(PROJECTS)})
    created: int = 0
    restarted: int = 0
    refused: int = 0
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, *, at_once: int = 8) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(self._publish_some())

    async def _publish_some(self) -> None:
        while self.created + self.restarted < RUNS:
            project = self.random.randrange(PROJECTS)
            if self.restarted < self.created and self.runs[project]:
                await self._restart(project)
            else:
                await self._create(project)
            self.progress.set()

    async def _create(self, project: int) -> None:
        self.created += 1
        group = f"/project/p{project}/branch/b{self.random.randrange(BRANCHES)}"
        answer = await self._post({"name": "run", "group": group, "run_config_tasks": TASKS})
        assert answer.status_code == 201, answer.text
        self.runs[project].append(answer.json()["run"]["id"])

    async def _restart(self, project: int) -> None:
        """Restart a run that is about to be removed, or is gone."""
        recent = self.runs[project][-KEEP - 3 :]
        answer = await self._post({"run_id": self.random.choice(recent), "tasks": ["test"]})
        if answer.status_code == 201:
            self.restarted += 1
            self.runs[project].append(answer.json()["run"]["id"])
        else:
            assert answer.status_code in (400, 404, 409), answer.text
            self.refused += 1
            await self._create(project) if self.created < RUNS // 2 else await asyncio.sleep(0)

    async def _post(self, body: dict[str, Any]) -> httpx2.Response:
        """Create a run; wait where a machine under load is behind."""
        for _ in range(60):
            answer = await self.http.post("/runs", json=body)
            if answer.status_code != 503:
                break
            await asyncio.sleep(0.5)  # sleeps: as the answer asks for
        return answer

    async def listed(self) -> dict[str, dict[str, Any]]:
        """All runs that the service has."""
        found: dict[str, dict[str, Any]] = {}
        cursor = ""
        while True:
            page = (await self.http.get("/runs", params={"limit": 40, **({"cursor": cursor} if cursor else {})})).json()
            found |= {run["id"]: run for run in page["runs"]}
            if not (cursor := page["cursor"]):
                return found


@asynccontextmanager
async def deployed(folder: Path) -> AsyncIterator[tuple[Deployment, PosixObjects]]:
    """A gateway with a scheduler, an executor in this process, and two cleaners in processes of their own."""
    settings = folder / "settings.yml"
    settings.write_text(SETTINGS)
    objects = PosixObjects(folder / "objects")
    async with servers(folder) as deployment:
        deployment.process("gateway", "gateway,scheduler", "--config", str(settings))
        for name in CLEANERS:
            deployment.process(name, "datamanager")
        await asyncio.gather(*(process.start() for process in deployment.processes.values()))
        async with nats_connection(deployment.nats.url) as client, await open_log(client, "runstream") as log:
            leases = await open_leases(client, "runstream_executors", seconds=15, replicas=1)
            place = ExecutorPlace(folder / "executor-data")
            offered = ExecutorSettings(active_tasks_limit=0)
            async with TaskExecutor(place, offered, log, leases, StoringRunner(objects)).serving():
                yield deployment, objects


@pytest.mark.seconds(60 + RUNS // 3)
@pytest.mark.chaos
async def test_what_is_referred_to_stays_and_all_else_goes(open_path: Path) -> None:
    chaos = Chaos(seed=21, ordinarily=2)
    async with deployed(open_path) as (deployment, objects):
        headers = {"Authorization": f"token {TOKEN}"}
        url = f"{deployment.gateway.url}/api/v1alpha"
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
            load, begun = Load(http, chaos.random), time.monotonic()
            async with asyncio.TaskGroup() as group:
                publishing = group.create_task(load.publish())
                for kill in chaos:
                    while load.created + load.restarted < RUNS * (kill + 1) // (chaos.kills + 1):
                        load.progress.clear()
                        await load.progress.wait()
                    victim = deployment.processes[CLEANERS[kill % 2]]
                    await victim.kill()
                    await victim.start()
                await publishing
            published = time.monotonic() - begun
            left = await settled(load, objects)
            say(
                f"{load.created} runs and {load.restarted} restarts in {published:.0f} s, {load.refused} refused, "
                f"{chaos.kills} kills; settled after {time.monotonic() - begun:.0f} s with {len(left)} runs"
            )
            expected: set[str] = set()
            for run_id in left:
                tasks = (await http.get(f"/runs/{run_id}")).json()["run"]["tasks"].values()
                for one in tasks:
                    expected |= of_task(one["id"], one["name"])
            assert {path for path in await stored(objects) if "/data/" in path} == expected
        checked = await deployment.fsck()
        assert checked.code == 0, checked


async def settled(load: Load, objects: PosixObjects) -> set[str]:
    """Wait until all runs have ended, no more are kept than should be, and what the others left is gone."""
    for _ in range(6000):
        runs = await load.listed()
        ended = all(run["archived"] for run in runs.values())
        if ended and len(runs) == PROJECTS * KEEP:
            referring = {path.rpartition("/")[2] for path in await stored(objects) if "/runs/" in path}
            if referring == runs.keys():
                return set(runs)
        await asyncio.sleep(0.1)  # sleeps: no event says that objects are gone
    raise AssertionError(len(runs))


async def stored(objects: PosixObjects) -> list[str]:
    """The paths of all logs, archives and references."""
    return [one.path for kind in ("logs/", "workspacearchives/") async for one in objects.list(kind)]
