"""How an executor handles tasks that are stopped, lost, redelivered, too many, or left by an earlier process."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import signal
import sys
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from runstream.commits import Head
from runstream.errors import InternalError
from runstream.events.executor import ExecutorDeleted, ExecutorRegistered
from runstream.events.executor_task import (
    ExecutorTaskLost,
    ExecutorTaskPhase,
    ExecutorTaskStarted,
    ExecutorTaskStepStarted,
    ExecutorTaskStopRequested,
    ExecutorTaskTimedOut,
)
from runstream.executor.drivers.noop import NoopRunner
from runstream.executor.process_tree import MARK, find_process, readable
from runstream.executor.task import Ended, Job
from runstream.executor.workdir import ExecutorPlace
from runstream.objects import PosixObjects, paths
from runstream.steplogs.log_state import CUT_OFF
from runstream.subjects import Address, partition_of
from tests.executor.rig import SETTINGS, Rig, Watched, limited, rig, run_step, task_of
from tests.log.memory import MemoryLog

NOT_STARTED, RUNNING = ExecutorTaskPhase.NOT_STARTED, ExecutorTaskPhase.RUNNING
STOPPED, FAILED, SUCCESS = ExecutorTaskPhase.STOPPED, ExecutorTaskPhase.FAILED, ExecutorTaskPhase.SUCCESS

FAMILY = """
sleep 1000 &
setsid sleep 1000 &
env -i setsid sleep 1000 &
(trap '' TERM; exec sleep 1000) &
echo ready > ~/ready
wait
"""


def descendants(folder: Path) -> list[int]:
    """The processes that work in the task's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and find_process(int(entry.name)) is not None:
            try:
                where = (entry / "cwd").readlink()
            except OSError:
                continue
            if where.is_relative_to(folder):
                found.append(int(entry.name))
    return found


async def appears(path: Path) -> None:
    """Wait for a file that a step makes; a process waits for it, since nothing tells of files."""
    waiting = f"until test -e {shlex.quote(str(path))}; do sleep 0.01; done"
    process = await asyncio.create_subprocess_exec("sh", "-c", waiting)
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


@pytest.mark.parametrize(
    ("event", "phase", "step_phase"),
    [
        (ExecutorTaskStopRequested(), STOPPED, STOPPED),
        (ExecutorTaskTimedOut(), FAILED, FAILED),
    ],
)
async def test_a_stop_and_a_time_out_end_the_whole_family(
    tmp_path: Path, event: ExecutorTaskStopRequested | ExecutorTaskTimedOut, phase: str, step_phase: str
) -> None:
    async with rig(tmp_path, settings=replace(SETTINGS, stop_grace_seconds=0.3)) as it:
        task = await it.assign(task_of("task", run_step(FAMILY)))
        await task.step_begun()
        folder = it.task_folder(task)
        await appears(folder / "home" / "ready")
        assert len(descendants(folder)) == 5
        await task.say(event)
        await task.settled()
        assert descendants(folder) == []
        assert (task.task.phase, task.task.steps[0].phase) == (phase, step_phase)
        assert task.task.steps[0].exit_status is None
        assert task.task.timedout is isinstance(event, ExecutorTaskTimedOut)
        last = "The task timed out." if task.task.timedout else "The task was ended: it was asked to stop."
        assert (await task.log()).splitlines()[-1] == last


async def test_sigterm_comes_before_sigkill(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        command = "trap 'echo asked; exit 0' TERM; echo ready > ~/ready; while :; do sleep 0.01; done"
        task = await it.assign(task_of("task", run_step(command)))
        await task.step_begun()
        await appears(it.task_folder(task) / "home" / "ready")
        await task.say(ExecutorTaskStopRequested())
        await task.settled()
        assert "asked\n" in await task.log()
        assert task.task.phase is STOPPED


async def test_a_stop_before_the_start_cancels(tmp_path: Path) -> None:
    async with rig(tmp_path, start=False) as it:
        task = await it.assign(task_of("task", run_step("true")))
        await task.say(ExecutorTaskStopRequested())
        assert it.executor is not None
        await it.executor.start()
        assert (await task.ended()).phase is ExecutorTaskPhase.CANCELLED


class GatedRunner(NoopRunner):
    """Runs a task when the test lets it."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.most = 0
        self.gate = asyncio.Semaphore(0)
        self.begun = asyncio.Semaphore(0)

    async def run(self, job: Job) -> Ended:
        self.running.append(job.task.id)
        self.most = max(self.most, len(self.running))
        self.begun.release()
        await self.gate.acquire()
        self.running.remove(job.task.id)
        return await super().run(job)


async def test_no_more_run_at_once_than_the_limit_says(tmp_path: Path) -> None:
    runner = GatedRunner()
    async with rig(tmp_path, runner=runner, settings=limited(3)) as it:
        tasks = [await it.assign(task_of("task", run_step("true"))) for _ in range(10)]
        for _ in range(3):
            await runner.begun.acquire()
        waiting = [task for task in tasks if task.address.id not in runner.running]
        await waiting[0].say(ExecutorTaskStopRequested())  # needs no room to be cancelled
        assert (await waiting[0].ended()).phase is ExecutorTaskPhase.CANCELLED
        offer = orjson.loads(it.leases.value())
        assert sum(offer["open_tasks"].values()) == 9
        assert offer["active_tasks_limit"] == 3
        for _ in range(9):
            runner.gate.release()
        for task in tasks:
            await task.settled()
        assert runner.most == 3


async def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    runner = GatedRunner()
    async with rig(tmp_path, runner=runner, settings=limited(0)) as it:
        for _ in range(50):
            await it.assign(task_of("task", run_step("true")))
        for _ in range(50):
            await runner.begun.acquire()
        assert len(runner.running) == 50
        for _ in range(50):
            runner.gate.release()


async def test_a_task_that_two_executors_read_is_started_once(tmp_path: Path) -> None:
    """Two executors with one id: the log decides which of them runs a task."""
    log = MemoryLog()
    objects = PosixObjects(tmp_path / "objects")
    settings = limited(0)
    (tmp_path / "ran").mkdir()
    async with (
        rig(tmp_path / "one", log=log, objects=objects, settings=settings, start=False) as one,
        rig(tmp_path / "two", log=log, objects=objects, settings=settings, start=False) as two,
    ):
        assert one.executor is not None
        assert two.executor is not None
        two.executor.id = one.executor.id
        await asyncio.gather(one.executor.start(), two.executor.start())
        tasks = [await one.assign(task_of("task", run_step(f"echo x >> {tmp_path}/ran/$$"))) for _ in range(20)]
        for task in tasks:
            assert (await task.settled()).phase is SUCCESS
        assert len(list((tmp_path / "ran").iterdir())) == 20


async def test_a_restart_runs_nothing_twice(tmp_path: Path) -> None:
    log = MemoryLog()
    async with rig(tmp_path, log=log) as it:
        first = await it.run(run_step("echo once"))
    commits = await first.commits()
    async with rig(tmp_path, log=log) as it:
        second = await it.run(run_step("echo again"))
        assert (second.task.phase, await first.commits()) == (SUCCESS, commits)
    (tmp_path / "executor" / "positions.json").unlink()
    async with rig(tmp_path, log=log) as it:
        await it.run(run_step("echo again"))
        assert await first.commits() == commits


async def test_reads_from_before_a_restore_of_the_log_are_discarded(tmp_path: Path) -> None:
    """The log lost its end and has grown since: new commits stand at sequences that the executor has read before."""
    async with rig(tmp_path, log=MemoryLog(partitions=1)) as it:
        for _ in range(3):
            await it.run(run_step("echo lost"))
    restored = MemoryLog(partitions=1)
    async with rig(tmp_path, log=restored, start=False) as it:
        tasks = [await it.assign(task_of("task", run_step("echo new"))) for _ in range(40)]
        assert it.executor is not None
        await it.executor.start()
        for task in tasks:
            assert (await task.settled()).phase is SUCCESS
        tidy = [await task.commits() for task in tasks]
    (tmp_path / "executor" / "positions.json").unlink()
    async with rig(tmp_path, log=restored) as it:
        await it.run(run_step("echo again"))
        assert [await task.commits() for task in tasks] == tidy


async def test_a_late_report_of_a_lost_task_is_refused_and_its_processes_end(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        task = await it.assign(task_of("task", run_step("echo begun; echo > ~/ready; sleep 1000"), run_step("true")))
        await task.step_begun()
        folder = it.task_folder(task)
        await appears(folder / "home" / "ready")
        await task.say(ExecutorTaskLost(datetime.now(UTC), "its lease expired"))
        settled = await task.until(lambda state: state.steps[0].log_settled)
        assert settled.lost
        assert (settled.phase, settled.fail_error) == (FAILED, "its lease expired")
        assert descendants(folder) == []
        assert "begun\n" in await task.log()


async def test_an_orderly_stop_ends_tasks_and_says_why(tmp_path: Path) -> None:
    log = MemoryLog()
    async with rig(tmp_path, log=log, settings=limited(1)) as it:
        task = await it.assign(task_of("task", run_step("sleep 1000")))
        waits = await it.assign(task_of("waits", run_step("true")))
        await task.step_begun()
    await task.settled()
    assert (task.task.phase, task.task.fail_error) == (FAILED, "the executor was stopped")
    assert not it.leases.given.held.is_set()
    async with rig(tmp_path, log=log) as again:
        waits.rig = again
        assert (await waits.settled()).phase is SUCCESS


async def test_a_deleted_executor_ends_its_tasks_and_registers_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        task = await it.assign(task_of("task", run_step("sleep 1000")))
        await task.step_begun()
        address = Address(partition_of(it.executor_id, it.log.partitions), "executor", it.executor_id)
        last = await it.log.last(address)
        assert last is not None
        assert isinstance(last.commit.events[0], ExecutorRegistered)
        head = Head(last.commit.version, last.position.sequence)
        await it.log.append(head.next_commit(address, (ExecutorDeleted(),), time=datetime.now(UTC), actor="user:me"))
        await task.settled()
        assert (task.task.phase, task.task.fail_error) == (FAILED, "the executor was deleted")
        async with it.log.read(address.partition, 0, filters=[it.log.subjects.of(address)]) as reader:
            seen = 0
            while seen < 3:
                seen += len(await reader.next_batch())


async def test_an_unchanged_executor_registers_once(tmp_path: Path) -> None:
    log = MemoryLog()
    for _ in range(2):
        async with rig(tmp_path, log=log) as it:
            address = Address(partition_of(it.executor_id, log.partitions), "executor", it.executor_id)
    assert len(await log.history(address)) == 1


async def test_a_lease_that_is_lost_ends_what_runs(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        task = await it.assign(task_of("task", run_step("trap '' TERM; sleep 1000")))
        await task.step_begun()
        it.leases.given.lost.set_exception(InternalError("gone", code="leaseLost"))
        assert "could not renew its lease" in (await task.settled()).fail_error


async def test_a_second_executor_in_one_folder_is_refused(tmp_path: Path) -> None:
    async with rig(tmp_path), rig(tmp_path, start=False) as second:
        assert second.executor is not None
        with pytest.raises(InternalError, match="another executor uses"):
            await second.executor.start()


async def test_what_cannot_be_read_stops_nothing_else(tmp_path: Path) -> None:
    log = MemoryLog()
    async with rig(tmp_path, log=log) as it:
        for partition in range(log.partitions):
            log.put(partition, f"{log.subjects.prefix(partition)}.task.{it.executor_id}.x", b"not a commit")
        assert (await it.run(run_step("true"))).task.phase is SUCCESS


async def sleeper(*, env: dict[str, str] | None = None, cwd: Path | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec("sleep", "1000", env=env, cwd=cwd, start_new_session=True)


async def started_by_another(it: Rig, task: Watched, *, step: bool = True) -> None:
    """Append the reports of an earlier process of this executor that died."""
    await task.say(ExecutorTaskStarted(datetime.now(UTC)))
    if step:
        await task.say(ExecutorTaskStepStarted(0, datetime.now(UTC)))


async def test_a_task_that_was_running_at_a_crash_has_failed(tmp_path: Path) -> None:
    log = MemoryLog()
    async with rig(tmp_path, log=log, start=False) as it:
        task = await it.assign(task_of("task", run_step("echo never")))
        await started_by_another(it, task)
        folder = it.task_folder(task)
        (folder / "logs").mkdir(parents=True)
        (folder / "0.log").write_text("half a log\n")
        mark = {MARK: f"{it.executor_id}/{task.address.id}"}
        marked = await sleeper(env={**os.environ, **mark})
        in_folder = await sleeper(cwd=folder)
        bystander = await sleeper()
        try:
            assert it.executor is not None
            await it.executor.start()
            await task.settled()
            assert (await marked.wait(), await in_folder.wait()) == (-signal.SIGKILL, -signal.SIGKILL)
            assert find_process(bystander.pid) is not None
        finally:
            bystander.kill()
            await bystander.wait()
        assert task.task.phase is FAILED
        assert task.task.fail_error == "executor lost: it was restarted while the task was running"
        assert task.task.steps[0].phase is FAILED
        assert await task.log() == f"half a log\n{CUT_OFF}\n"
        assert not await it.is_stored(paths.step_log(task.run_task_id, None))


CRASHING = """
import asyncio, sys
from pathlib import Path
from tests.executor.rig import rig, run_step, task_of

async def main():
    async with rig(Path(sys.argv[1])) as it:
        task = await it.assign(task_of("task", run_step("sleep 1000 & setsid sleep 1000 & echo > ~/ready; wait")))
        await task.step_begun()
        print(it.task_folder(task), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("agent_too", [False, True])
async def test_what_a_task_started_ends_with_a_killed_executor(tmp_path: Path, agent_too: bool) -> None:
    """By the agent, which sees that the executor is gone; if that was killed too, at the executor's next start."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CRASHING, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    try:
        line = b""
        while not line.startswith(b"/"):
            line = await process.stdout.readline()
        folder = Path(line.decode().strip())
        await appears(folder / "home" / "ready")
        orphans = descendants(folder)
        assert len(orphans) == 3
        handles = [os.pidfd_open(pid) for pid in orphans]
        if agent_too:
            process.send_signal(signal.SIGSTOP)
            os.kill(int((folder / "processes").read_text().split()[1]), signal.SIGKILL)
    finally:
        process.kill()
        await process.wait()
    if not agent_too:
        for handle in handles:
            await readable(handle)
    # The rig's log was in memory and is gone: this executor finds a folder of an unknown task.
    async with rig(tmp_path):
        assert descendants(folder) == []
        assert list((tmp_path / "executor" / "tasks").iterdir()) == []
    for handle in handles:
        await readable(handle)
        os.close(handle)


async def test_an_identity_is_kept(tmp_path: Path) -> None:
    first = ExecutorPlace(tmp_path).identity()
    assert ExecutorPlace(tmp_path).identity() == first
    assert ExecutorPlace(tmp_path).identity("chosen") == "chosen"


async def test_a_noop_task_is_two_commits_of_the_executor(tmp_path: Path) -> None:
    async with rig(tmp_path, runner=NoopRunner(), settings=SETTINGS) as it:
        done = await it.run(run_step("false"), run_step("false"))
        assert (done.task.phase, await done.commits()) == (SUCCESS, 3)


async def test_a_task_that_is_cancelled_before_it_begins_leaves_no_work_that_never_ran(tmp_path: Path) -> None:
    async def work() -> None:
        raise AssertionError

    held: Any = SimpleNamespace(id="early")
    async with rig(tmp_path, start=False) as running:
        assert running.executor is not None
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            running.executor.begin(held, work())
            (begun,) = (each for each in asyncio.all_tasks() if each.get_name() == "task early")
            begun.cancel()
            await asyncio.wait({begun})
            del begun
            gc.collect()
        assert [str(one.message) for one in found] == []
