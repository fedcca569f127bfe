"""(g) One big graph: the time to create and to schedule a run of 500 tasks, and to check a configuration."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.figures import Figures, percentile
from benchmarks.http import connections
from benchmarks.standing import Deployment
from benchmarks.watching import watching
from runstream.log.jetstream import JetStreamLog

LEVELS, WIDTH = 5, 100
CREATE_MS = 300.0
SCHEDULE_SECONDS = 5.0
CHECK_MS = 400.0
_SAMPLES = 10
_CHECKS = 10
_PARENTS = 3
_RUNSTREAM = Path(sys.executable).with_name("runstream")
PROGRAM = """
local task(n) = {
  name: 'task ' + n,
  runtime: { containers: [{ image: 'python:3.11' }] },
  environment: { NUMBER: '' + n, TOKEN: { from_variable: 'token' } },
  depends: if n < 10 then [] else ['task ' + (n - 10)],
  steps: [
    { clone: { depth: 1 } },
    { run: 'make test-' + n },
    { save_to_workspace: { contents: [{ source_dir: 'dist' }] } },
  ],
};
function(ctx) { runs: [{ name: 'test ' + ctx.branch, tasks: [task(n) for n in std.range(0, 49)] }] }
"""
"""A configuration of 50 tasks."""


async def measure(deployment: Deployment, log: JetStreamLog, figures: Figures, repetitions: int) -> None:
    """A gateway, a scheduler and an executor that does nothing, each a process of its own."""
    name = f"{LEVELS * WIDTH} tasks in {LEVELS} levels"
    bodies = {
        "tasks": ("/runs", resolved_body()),
        "a file in YAML": ("/createruns", file_body("config.yml", yaml_file())),
        "a file in jsonnet": ("/createruns", file_body("config.jsonnet", json_file())),
    }
    for kind, (path, body) in bodies.items():
        created = [await _created(deployment, log, path, body) for _ in range(repetitions)]
        figures.add("g", f"{name}, created of {kind}: p50", "ms", created, aim=CREATE_MS, better="less")
    finished = [await _finished(deployment, log) for _ in range(repetitions)]
    figures.add("g", f"{name}, from created to finished", "s", finished, aim=SCHEDULE_SECONDS, better="less")


async def measure_check(figures: Figures, repetitions: int) -> None:
    """`runstream config check` as a shell starts it, and beside it what Python alone takes to start."""
    with TemporaryDirectory(prefix="runstream-check-") as folder:
        file = Path(folder) / "config.jsonnet"
        await asyncio.to_thread(file.write_text, PROGRAM)
        check = [str(_RUNSTREAM), "config", "check", str(file), "--branch", "main"]
        alone = [await _command_ms([sys.executable, "-c", "pass"]) for _ in range(repetitions)]
        figures.add("g", "python -c pass, from the shell: p50", "ms", alone, limit=True)
        checked = [await _command_ms(check) for _ in range(repetitions)]
        figures.add(
            "g", "config check of 50 tasks in jsonnet, from the shell: p50", "ms", checked, aim=CHECK_MS, better="less"
        )


async def _created(deployment: Deployment, log: JetStreamLog, path: str, body: bytes) -> float:
    """Milliseconds from the request to the answer: the run is durable then. The runs before it have ended."""
    samples: list[float] = []
    async with connections(deployment.url, deployment.token, 1) as (connection,), watching(log) as watch:
        for _ in range(_SAMPLES):
            begun = time.perf_counter()
            answer = await connection.post(path, body)
            samples.append((time.perf_counter() - begun) * 1000)
            await watch.until([_run_id(answer)])
    return percentile(samples[1:], 50)


async def _finished(deployment: Deployment, log: JetStreamLog) -> float:
    """Seconds from the answer to the creation until the run has finished."""
    async with connections(deployment.url, deployment.token, 1) as (connection,), watching(log) as watch:
        run_id = _run_id(await connection.post("/runs", resolved_body()))
        begun = time.perf_counter()
        await watch.until([run_id])
        return watch.finished[run_id] - begun


def _run_id(answer: bytes) -> str:
    told = msgspec.json.decode(answer)
    (one,) = told.get("runs", [told])
    return str(one["run"]["id"])


async def _command_ms(command: list[str]) -> float:
    samples: list[float] = []
    for _ in range(_CHECKS):
        begun = time.perf_counter()
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        if await process.wait():
            raise RuntimeError(f"{command} failed")
        samples.append((time.perf_counter() - begun) * 1000)
    return percentile(samples, 50)


def parents(level: int, index: int) -> list[str]:
    """The tasks that a task depends on: three of the level before it."""
    return [name(level - 1, (index + k) % WIDTH) for k in range(_PARENTS)] if level else []


def name(level: int, index: int) -> str:
    """What a task is called."""
    return f"level {level} task {index}"


def tasks() -> list[Mapping[str, object]]:
    """The tasks as a configuration has them."""
    return [
        {
            "name": name(level, index),
            "runtime": {"type": "host"},
            "environment": {"NUMBER": str(index)},
            "depends": parents(level, index),
            "steps": [{"run": {"name": "build", "command": "true"}}, {"run": "true"}],
        }
        for level in range(LEVELS)
        for index in range(WIDTH)
    ]


def json_file() -> str:
    """The configuration in JSON, which is jsonnet, too."""
    return json.dumps({"runs": [{"name": "graph", "tasks": tasks()}]})


def yaml_file() -> str:
    """The configuration in YAML, one field a line."""
    lines = ["runs:", "- name: graph", "  tasks:"]
    for task in tasks():
        lines += [f"  - name: {task['name']}", "    runtime: {type: host}", "    environment:"]
        lines += [f"      NUMBER: {json.dumps(task['environment']['NUMBER'])}", "    depends:"]  # type: ignore[index]
        lines += [f"    - {parent}" for parent in task["depends"]]  # type: ignore[attr-defined]
        lines += ["    steps:", "    - run:", "        name: build", '        command: "true"', '    - run: "true"']
    return "\n".join(lines)


def file_body(config: str, content: str) -> bytes:
    """What POST /createruns takes."""
    return msgspec.json.encode({"config": {"name": config, "content": content}, "group": "/project/graph/branch/main"})


def resolved_body() -> bytes:
    """What POST /runs takes."""
    step = {"type": "run", "name": "true", "command": "true"}
    resolved = {
        str(task["name"]): {
            **task,
            "depends": {parent: {"task_id": parent} for parent in task["depends"]},  # type: ignore[attr-defined]
            "steps": [step, step],
        }
        for task in tasks()
    }
    return msgspec.json.encode({"group": "/project/graph/branch/main", "name": "graph", "run_config_tasks": resolved})
