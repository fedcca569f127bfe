"""`run create --follow` on real pipelines: what it shows, and its exit code: 0, 1 when failed, 3 when stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runstream.client import Client, RunPhase, RunSummary
from tests.acceptance.deployment import Deployment, Done, in_one_process

GROUP = "/project/web/branch/main"
FAILING = """
runs:
  - name: failing
    tasks:
      - {name: build, runtime: {type: host}, steps: [{run: "echo building; exit 3"}]}
      - {name: publish, runtime: {type: host}, depends: [build], steps: [{run: echo published}]}
      - name: report
        runtime: {type: host}
        depends: [{task: build, conditions: [on_failure]}]
        steps: [{run: echo reported}]
      - name: tidy
        runtime: {type: host}
        depends: [{task: publish, conditions: [on_skipped]}]
        steps: [{run: echo tidied}]
"""
ENDLESS = """
runs:
  - name: endless
    tasks:
      - {name: one, runtime: {type: host}, steps: [{run: "echo begun; while :; do sleep 0.1; done"}]}
"""


async def test_a_failing_run(open_path: Path) -> None:
    async with in_one_process(open_path, "--sandbox", "off") as deployment, deployment.client() as client:
        done = await _follow(deployment, open_path, FAILING)
        (summary,) = (await client.runs.page()).runs
        run = await client.runs.get(summary.id)
    assert done.code == 1, done
    assert (run.phase, run.result) == ("finished", "failed")
    assert {task.name: task.status for task in run.tasks.values()} == {
        "build": "failed",
        "publish": "skipped",
        "report": "success",
        "tidy": "success",
    }
    assert "failed" in done.out
    for line in ("building", "reported", "tidied"):
        assert line in done.out
    assert "published" not in done.out


async def test_a_stopped_run_and_a_cancelled_one(open_path: Path) -> None:
    async with in_one_process(open_path, "--sandbox", "off") as deployment, deployment.client() as client:
        async with asyncio.TaskGroup() as group:
            stopped = group.create_task(_follow(deployment, open_path, ENDLESS))
            first = await _in_phase(client, "ExecutorTaskStepStarted")
            cancelled = group.create_task(_follow(deployment, open_path, ENDLESS))
            second = await _in_phase(client, "RunCreated", but=first)
            assert (await deployment.run("run", "cancel", second)).code == 0
            assert (await cancelled).code == 3, cancelled.result()
            assert (await client.runs.get(first)).phase is RunPhase.RUNNING
            assert (await deployment.run("run", "stop", first)).code == 0
        runs: dict[str, RunSummary] = {run.id: run for run in (await client.runs.page()).runs}
    assert stopped.result().code == 3, stopped.result()
    assert "stopped" in stopped.result().out
    assert "cancelled" in cancelled.result().out
    assert (runs[first].phase, runs[first].result) == ("finished", "stopped")
    assert (runs[second].phase, runs[second].result) == ("cancelled", "unknown")


async def test_a_config_that_is_wrong(open_path: Path) -> None:
    async with in_one_process(open_path) as deployment, deployment.client() as client:
        wrong = FAILING.replace("depends: [build]", "depends: [biuld]").replace("type: host", "type: hots", 1)
        done = await _follow(deployment, open_path, wrong)
        assert (await client.runs.page()).runs == ()
    assert done.code == 1
    assert "biuld" in done.err
    assert "hots" in done.err
    assert "Traceback" not in done.err


async def _follow(deployment: Deployment, folder: Path, config: str) -> Done:
    file = folder / "config.yml"
    file.write_text(config)
    return await deployment.run("run", "create", "--config", str(file), "--group", GROUP, "--follow")


async def _in_phase(client: Client, event: str, *, but: str = "") -> str:
    """Return the first run other than this one with an event of this phase."""
    tasks: dict[str, str] = {}
    async for commit in client.events.tail("start"):
        kind, _, aggregate = commit.aggregate.partition("/")
        for told in commit.events:
            if kind == "task" and "run_id" in told.data:
                tasks[aggregate] = str(told.data["run_id"])
            run = tasks.get(aggregate, "") if kind == "task" else aggregate
            if told.type == event and run != but:
                return run
    raise AssertionError("the events ended")
