"""The agent that starts a task's commands: which tasks share one, and that no task gets hold of it."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

from runstream.events.executor_task import ExecutorTaskPhase
from runstream.executor.drivers.process import HostRules, ProcessDriver
from runstream.executor.process_tree import find_process, readable
from runstream.executor.workdir import TaskFolder
from tests.executor.rig import SETTINGS, Rig, rig, run_step, task_of
from tests.executor.test_life import appears
from tests.sandboxes import needs_sandbox

SUCCESS = ExecutorTaskPhase.SUCCESS
REQUIRED = replace(SETTINGS, sandbox="require")
PARENT = "echo $PPID"


async def parent(it: Rig, command: str = PARENT) -> int:
    """Run a task, and return the process that started its command."""
    return int((await (await it.run(run_step(command))).log()).split()[0])


async def test_an_agent_serves_one_task_after_the_other(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        assert await parent(it) == await parent(it) == await parent(it)


async def test_tasks_at_the_same_time_have_agents_of_their_own(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        waiting = await it.assign(
            task_of("task", run_step(f"{PARENT}; echo > ~/ready; until test -e ~/go; do :; done"))
        )
        await appears(it.task_folder(waiting) / "home" / "ready")
        other = await parent(it)
        (it.task_folder(waiting) / "home" / "go").touch()
        await waiting.settled()
        assert int(await waiting.log()) != other


async def test_no_task_gets_the_agent_of_one_that_left_processes(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        leaves = await it.run(run_step(f"{PARENT}; sleep 1000 & echo $!"))
        first, left = map(int, (await leaves.log()).split())
        assert find_process(left) is None
        assert await parent(it) != first


async def test_an_agent_that_was_killed_between_tasks_is_replaced(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        first = await parent(it)
        handle = os.pidfd_open(first)
        os.kill(first, signal.SIGKILL)
        await readable(handle)
        os.close(handle)
        assert await parent(it) != first


async def test_leftover_processes_are_ended_without_harm_to_the_next_task_of_the_agent(tmp_path: Path) -> None:
    """As after a fault in a task's handling: its record names an agent that serves another task by now."""
    driver = ProcessDriver("executor", HostRules(sandbox="off"))
    async with rig(tmp_path / "rig", driver=driver) as it:
        first = await parent(it)
        running = await it.assign(
            task_of("task", run_step(f"{PARENT}; echo > ~/ready; until test -e ~/go; do :; done"))
        )
        await appears(it.task_folder(running) / "home" / "ready")
        record = await asyncio.to_thread((it.task_folder(running) / "processes").read_text)
        assert int(record.split()[1]) == first
        earlier = TaskFolder(tmp_path / "earlier")
        earlier.make()
        earlier.processes.write_text(record)
        await driver.end_leftover("earlier", earlier)
        (it.task_folder(running) / "home" / "go").touch()
        done = await running.settled()
        assert (done.phase, int(await running.log())) == (SUCCESS, first)


ATTACH, SEIZE = 16, 0x4206
TRACE = f"""
import ctypes
for request in ({ATTACH}, {SEIZE}):
    if ctypes.CDLL(None).ptrace(request, 1, None, None) == 0:
        print("traced by", request)
"""


@needs_sandbox
async def test_no_task_ends_or_traces_the_agent_of_its_sandbox(tmp_path: Path) -> None:
    attempts = f"""
        test $PPID = 1
        for signal in KILL STOP TERM INT HUP CHLD USR1; do kill -$signal 1; done
        for file in environ maps mem fd/0 ns/mnt root/etc/passwd cwd/etc/passwd syscall stack; do
            if cat /proc/1/$file >/dev/null 2>&1; then echo "can read $file"; fi
        done
        python3 -c '{TRACE}'
    """
    async with rig(tmp_path, settings=REQUIRED) as it:
        done = await it.run(run_step(attempts), run_step("echo still here"))
        assert (await done.log(0), done.task.phase) == ("", SUCCESS)
        assert await done.log(1) == "still here\n"
