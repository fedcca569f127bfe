"""Executors in processes of their own, as root or as an ordinary user, that run tasks and say what they wrote.

    python -m tests.hostile.executor_as UID DATA_DIR        tasks come as lines of JSON on stdin, answers go to stdout

Each line has an executor of its own, forked when everything is imported: its output is "PID n", what it logs,
"ANSWER" with JSON if it was not killed, and "ENDED".

As an ordinary user it also has to find its Python and this project, which may lie in a home that only root may enter:
they are bound there in a mount namespace of the process.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from runstream.executor.spawner import kernel

ROOT = Path(__file__).parents[2]


def become(uid: int, *needed: Path) -> None:
    """Become a user of the machine who can read these folders."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    trees = [(path, kernel.open_tree(str(path))) for path in needed]
    closed = {closest for path in needed if (closest := _closed(path)) is not None}
    for path in sorted(closed):
        kernel.mount("open", str(path), "tmpfs", 0, "mode=755")
    for path, tree in trees:
        if any(each in path.parents for each in closed):
            path.mkdir(parents=True, exist_ok=True)
            kernel.attach(tree, str(path))
        os.close(tree)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)


def _closed(path: Path) -> Path | None:
    """The outermost folder on the way that others may not enter."""
    return next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)


async def serve(data_dir: Path, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Run all tasks, and return how each ended: side by side, or one after the other as tasks of one run."""
    from runstream.events.run_config import SaveContent, Step
    from runstream.ids import new_id
    from tests.executor.rig import SETTINGS, config_of, rig, run_step, task_of

    settings = replace(SETTINGS, active_tasks_limit=4, stop_grace_seconds=0.5, **asked["settings"])

    def step_of(step: str | dict[str, Any], *, tty: bool) -> Step:
        if isinstance(step, str):
            return run_step(step, tty=tty)
        contents = tuple(SaveContent(**{**content, "paths": tuple(content["paths"])}) for content in step["contents"])
        return Step(**{**step, "contents": contents})

    names: list[str] = []
    tasks = []
    for number, task in enumerate(asked["tasks"]):
        steps = [step_of(step, tty=task["tty"]) for step in task["steps"]]
        depends = tuple(names) if asked.get("one_run") else ()
        fields = {"environment": task["environment"], "working_dir": task.get("working_dir", ""), "level": number}
        tasks.append(task_of(f"task {number}", *steps, depends=depends, **fields))
        names.append(f"task {number}")

    async with rig(data_dir, settings=settings) as it:

        async def one(task: Any, **fields: Any) -> dict[str, Any]:
            watched = await it.assign(task, **fields)
            done = await watched.settled()
            return {
                "phase": done.phase.value,
                "error": done.fail_error,
                "setup": await watched.log(None),
                "logs": [await watched.log(index) for index, step in enumerate(done.steps) if step.start_time],
                "statuses": [step.exit_status for step in done.steps],
            }

        if asked.get("one_run"):
            config, run_id = config_of(*tasks), new_id()
            return [await one(task, config=config, run_id=run_id) for task in tasks]
        return list(await asyncio.gather(*(one(task) for task in tasks)))


def main() -> None:
    """Serve one request after the other."""
    uid, data_dir = int(sys.argv[1]), Path(sys.argv[2])
    if uid:
        become(uid, Path(sys.base_prefix), ROOT)
    importlib.import_module("tests.executor.rig")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            answer = asyncio.run(serve(data_dir, json.loads(line)))
            sys.stdout.write(f"\nANSWER {json.dumps(answer)}\n")
            return
        _say(f"PID {pid}")
        os.waitpid(pid, 0)
        _say("ENDED")


def _say(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
