"""Bubblewrap around steps: what a task can see and change, and what happens where there is none."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStopRequested
from runstream.events.run_config import Step
from runstream.executor.sandbox import find_sandbox
from runstream.executor.task_folder import TaskFolder
from tests.executor.rig import SETTINGS, rig, run_step, task_of
from tests.executor.test_life import appears
from tests.executor.test_workspace import git

REQUIRED = replace(SETTINGS, sandbox="require", stop_grace_seconds=2.0)
WORKS = bool(find_sandbox("auto", ()).program)
needs_bubblewrap = pytest.mark.skipif(not WORKS, reason="bubblewrap is not installed, or does not work here")


@needs_bubblewrap
async def test_the_home_is_writable_and_the_rest_is_not(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("token")
    (tmp_path / "outside").mkdir()
    commands = f"""
        echo home > ~/x; cat ~/x
        echo tmp > /tmp/x; cat /tmp/x
        ! touch /usr/x 2>/dev/null
        ! touch {Path.home()}/x 2>/dev/null
        ! cat {tmp_path}/secret 2>/dev/null
        test $(ls /proc | grep -c '^[0-9]') -lt 10
        echo done
    """
    async with rig(tmp_path, settings=REQUIRED) as it:
        done = await it.run(run_step(commands), run_step("cat /tmp/x; test -t 1 && echo tty", tty=True))
        assert done.task.phase is ExecutorTaskPhase.SUCCESS, await done.log(0)
        assert (await done.log(0), await done.log(1)) == ("home\ntmp\ndone\n", "tmp\r\ntty\r\n")
        assert "Sandboxed by bubblewrap" in await done.log(None)


@needs_bubblewrap
async def test_exit_status_and_stop(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=REQUIRED) as it:
        assert (await it.run(run_step("exit 5"))).task.steps[0].exit_status == 5
        command = "setsid sleep 1000 & trap 'echo asked; exit 0' TERM; echo > ~/ready; while :; do sleep 0.01; done"
        task = await it.assign(task_of("task", run_step(command)))
        await task.step_begun()
        await appears(it.task_folder(task) / "home" / "ready")
        await task.say(ExecutorTaskStopRequested())
        await task.settled()
        assert "asked\n" in await task.log()


@needs_bubblewrap
async def test_a_local_repository_can_be_cloned(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    async with rig(tmp_path / "executor", settings=REQUIRED) as it:
        done = await it.run(Step(type="clone"), environment={"AGOLA_REPOSITORY_URL": str(folder)})
        assert done.task.phase is ExecutorTaskPhase.SUCCESS, await done.log(0)


@needs_bubblewrap
def test_what_is_hidden_is_not_seen_be_it_a_folder_or_a_file() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # /tmp is the task's own in any case
        folder = Path(name)
        data, key = folder / "data", folder / "key"
        task = TaskFolder(data / "task")
        data.mkdir()
        task.make()
        (task.home / "mine").touch()
        for secret in (data / "key", key, folder / "open"):
            secret.write_text(f"secret in {secret.name}\n")
        sandbox = find_sandbox("auto", (data, data / "key", key, folder / "nothing", folder / "nothing"))
        script = f"ls {data} {task.home}; cat {data}/key {key}; cat {folder}/open"
        command = sandbox.wrap(("/bin/sh", "-c", script), task.home, task)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == f"{data}:\ntask\n\n{task.home}:\nmine\nsecret in open\n"
        assert command.count("--tmpfs") == 1


async def test_a_required_sandbox_that_is_not_there_fails_the_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with rig(tmp_path, settings=REQUIRED) as it:
        done = await it.run(run_step("true"))
        assert "a sandbox is required, but bubblewrap is not installed" in await done.log(None)
        assert "--sandbox auto" in await done.log(None)


async def test_one_that_does_not_work_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bwrap").write_text("#!/bin/sh\necho no namespaces here >&2\nexit 1\n")
    (tmp_path / "bin/bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{Path(shutil.which('sh') or '/bin/sh').parent}")
    async with rig(tmp_path, settings=replace(SETTINGS, sandbox="auto")) as it:
        assert "Not sandboxed" in await (await it.run(run_step("true"))).log(None)
    assert "no namespaces here" in find_sandbox("require", ()).missing
