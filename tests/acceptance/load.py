"""A load of many small runs in groups, published over HTTP; each is recorded with its acknowledged position."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx2

from runstream.commits import Position
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.run_states import RunResult
from tests.acceptance.deployment import TOKEN, Deployment
from tests.acceptance.story import Story, reread

ATTEMPT_SECONDS = 40.0


def step(command: str, name: str = "run") -> dict[str, Any]:
    return {"type": "run", "name": name, "command": command, "tty": False}


def task(name: str, *commands: str, after: Iterable[str] = (), **fields: object) -> dict[str, Any]:
    """A task of a request, with one step a command."""
    depends = {parent: {"task_id": parent, "conditions": ["on_success"]} for parent in after}
    steps = [step(command) for command in commands]
    return {"name": name, "runtime": {"type": "host"}, "depends": depends, "steps": steps, **fields}


def chain(command: str = "true") -> dict[str, Any]:
    """Three tasks, one after the other."""
    return {
        "one": task("one", command),
        "two": task("two", command, after=["one"]),
        "three": task("three", command, after=["two"]),
    }


def fork(command: str = "true") -> dict[str, Any]:
    """Two tasks after one."""
    return {
        "one": task("one", command),
        "two": task("two", command, after=["one"]),
        "three": task("three", command, after=["one"]),
    }


class Load:
    """Runs of a deployment, published by several at once; `accepted` has what was answered with 201."""

    def __init__(self, deployment: Deployment, runs: int, groups: int, tasks: Mapping[str, Any] | None = None) -> None:
        self.accepted: dict[str, Position] = {}
        self.failed: list[str] = []
        self._deployment = deployment
        self._numbers = iter(range(runs))
        self._groups = groups
        self._tasks = tasks
        self._some = asyncio.Event()

    async def publish(self, *, at_once: int = 12, pause: float = 0.0) -> None:
        """Publish every run; a failed request is recorded and not sent again.

        `pause`: seconds between two runs of the same publisher, for a load that only has to go on.
        """
        headers = {"Authorization": f"token {TOKEN}"}
        url = f"{self._deployment.gateway.url}/api/v1alpha"
        async with (
            httpx2.AsyncClient(base_url=url, headers=headers, timeout=ATTEMPT_SECONDS) as http,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(at_once):
                group.create_task(self._publish_some(http, pause))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until the accepted runs satisfy a condition."""
        while not holds():
            self._some.clear()
            await self._some.wait()

    async def _publish_some(self, http: httpx2.AsyncClient, pause: float) -> None:
        for number in self._numbers:
            await self._publish(http, number)
            self._some.set()
            await asyncio.sleep(pause)  # sleeps: it is the rate of the load

    async def _publish(self, http: httpx2.AsyncClient, number: int) -> None:
        tasks = self._tasks or (chain(), fork())[number % 2]
        group = f"/project/p{number % self._groups}/branch/main"
        body = {"name": f"run {number}", "group": group, "run_config_tasks": tasks}
        try:
            answer = await http.post("/runs", json=body)
        except httpx2.TransportError as error:
            self.failed.append(f"{type(error).__name__} {error}")
            return
        if answer.status_code == 201:
            epoch, partition, sequence = answer.headers["runstream-position"].split("/")
            self.accepted[answer.json()["run"]["id"]] = Position(int(epoch), int(partition), int(sequence))
        else:
            self.failed.append(f"{answer.status_code} {answer.text}")


def was_orderly(story: Story) -> None:
    """Check the invariants of every log: one run of a group at a time, each task assigned and started at most once."""
    assert story.overlaps == []
    assert {task: count for task, count in story.executions.items() if count > 1} == {}
    assert {task: count for task, count in story.starts.items() if count > 1} == {}


def all_succeeded(story: Story, runs: Iterable[str]) -> None:
    """Check that each run succeeded and that each of its three tasks was started exactly once."""
    was_orderly(story)
    for run in runs:
        assert story.results[run] is RunResult.SUCCESS, run
        tasks = story.tasks_of(run)
        assert set(tasks) == {"one", "two", "three"}
        assert {task.phase for task in tasks.values()} == {ExecutorTaskPhase.SUCCESS}
        assert {story.starts[task.id] for task in tasks.values()} == {1}


async def nothing_is_missing(deployment: Deployment, load: Load, story: Story) -> None:
    """Everything that was acknowledged or ever read is in the log, where it was; the projection is as the log says."""
    now = await reread(deployment.nats.url)
    for run, position in load.accepted.items():
        assert now.commits[position].commit.address.aggregate == f"run/{run}"
    assert {at: now.commits[at].commit.id for at in story.commits} == {
        at: stored.commit.id for at, stored in story.commits.items()
    }
    done = await deployment.fsck()
    assert done.code == 0, done
