"""The sandbox that is ready before its task is known: only a new task gets it, and only while it is as a new one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runstream.errors import InternalError
from runstream.events.executor import ExecutorDrained, ExecutorUndrained
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.executor.drivers.process import ProcessDriver, ReadySandbox
from runstream.executor.drivers.spare import Spare
from runstream.executor.executor import make_driver
from runstream.executor.process_tree import find_process, readable
from runstream.executor.workdir import ExecutorPlace
from runstream.settings import Settings
from tests.executor.rig import SETTINGS, Rig, Watched, rig, run_step, task_of
from tests.executor.test_draining import say
from tests.executor.test_life import appears
from tests.sandboxes import needs_sandbox

REQUIRED = replace(SETTINGS, sandbox="require")
SUCCESS = ExecutorTaskPhase.SUCCESS
WAITS = "echo > ~/ready; until test -e ~/go; do :; done"


def driver(it: Rig) -> ProcessDriver:
    assert it.executor is not None
    found = it.executor.runner.capabilities
    assert isinstance(found, ProcessDriver)
    return found


async def ready(it: Rig) -> ReadySandbox:
    """Wait until the executor is idle, and return its spare."""
    assert it.executor is not None
    while works := {work for work in asyncio.all_tasks() if work.get_name().startswith("task ")}:
        await asyncio.wait(works)
    await driver(it).spare.settled()
    found = driver(it).spare.ready
    assert found is not None
    return found


@contextlib.asynccontextmanager
async def running(it: Rig, command: str = "") -> AsyncIterator[tuple[Watched, int]]:
    """Yield a task and its agent while its only step runs."""
    watched = await it.assign(task_of("task", run_step(f"{command}\n{WAITS}")))
    try:
        yield watched, await agent_of(it, watched)
    finally:
        (it.task_folder(watched) / "home" / "go").touch()
    await watched.settled()


async def agent_of(it: Rig, watched: Watched) -> int:
    """Wait until the task's step runs, and return the process id of its agent."""
    folder = it.task_folder(watched)
    await appears(folder / "home" / "ready")
    return int((await asyncio.to_thread((folder / "processes").read_text)).split()[1])


async def ended(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            await readable(handle)
        finally:
            os.close(handle)


@needs_sandbox
async def test_a_task_gets_the_sandbox_that_is_ready_and_the_next_one_another(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=REQUIRED) as it:
        first = await ready(it)
        async with running(it) as (_, agent):
            assert agent == first.host.process.pid
            assert not first.folder.home.exists()
        second = await ready(it)
        assert (second.host.process.pid, second.folder.root) != (first.host.process.pid, first.folder.root)
        assert second.user != first.user or os.geteuid() != 0
        async with running(it) as (_, agent), running(it) as (_, beside):
            assert agent == second.host.process.pid != beside


LOOK_AROUND = """
exec 2>&1
for folder in ~ /tmp /dev/shm; do echo "in $folder" > $folder/x; cat $folder/x; rm $folder/x; done
id; umask; env | sort; ulimit -a
find / ~ /tmp /dev/shm /dev /run /home -maxdepth 1 -printf '%M %U %G %p %l\\n' | sort
ls -l /proc/self/fd /proc/self/ns | wc -l
grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid|SigBlk|SigIgn|NSpid)' /proc/self/status
cat /proc/self/mountinfo /proc/self/uid_map /proc/self/gid_map /etc/passwd /proc/net/dev
cat /proc/keys | wc -l
"""
_VARIES = (
    (r"\d{4}-\d{2}-\d{2}.\d{2}:\d{2}|\w{3} +\d+ \d{2}:\d{2}", "TIME"),
    (r"[0-9a-f-]{36}|ready-[0-9a-f]{16}|step-[0-9a-f]{12}", "ID"),
    (r"\b(1900|19\d{8}|\d{5})\b|(?m)^\d+ \d+ \d+:\d+", "N"),
    (r"(?m)^ *(lo|eth\d+|en\w+):.*$", r"\1"),
)


def _settled(text: str) -> str:
    for pattern, name in _VARIES:
        flags = re.MULTILINE if "(?m)" in pattern else 0
        text = re.sub(pattern.replace("(?m)", ""), name, text, flags=flags)
    return text


@needs_sandbox
async def test_a_task_finds_in_it_what_it_finds_in_one_made_for_it(tmp_path: Path) -> None:
    look = (run_step(LOOK_AROUND), run_step(f"cd ~; {LOOK_AROUND}", tty=True))
    async with rig(tmp_path, settings=REQUIRED) as it:
        driver(it).expect_tasks(False)
        await driver(it).spare.settled()
        fresh = await it.run(*look)
        await ready(it)
        spare = await it.run(*look)
        for step in (None, 0, 1):
            assert _settled(await spare.log(step)) == _settled(await fresh.log(step))


@needs_sandbox
async def test_a_spare_that_was_killed_is_noticed_even_at_the_same_moment(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=REQUIRED) as it:
        for seen in (True, False):
            spare = await ready(it)
            handle = os.pidfd_open(spare.host.process.pid)
            os.kill(spare.host.process.pid, signal.SIGKILL)
            if seen:
                await readable(handle)
            else:  # blocks, so that the executor cannot have read that its agent has ended
                select.select([handle], [], [], 10)
                assert not spare.host.agent.alive
            os.close(handle)
            assert (await it.run(run_step("true"))).task.phase is SUCCESS
        assert (await ready(it)).host.agent.alive


class Machine:
    """Places of the machine that the settings show and hide."""

    def __init__(self, folder: Path) -> None:
        self.late, self.link, self.file, self.shown = (folder / name for name in ("late", "link", "file", "shown"))
        self.one, self.two = folder / "one", folder / "two"
        self.hidden = folder / "shown" / "data"
        for each in (self.one, self.two, self.shown, self.hidden):
            each.mkdir()
        self.link.symlink_to("one")
        self.file.write_text("one")
        (self.hidden / "key").write_text("secret")

    def create(self) -> None:
        self.late.mkdir()
        (self.late / "x").write_text("created\n")

    def retarget(self) -> None:
        self.link.unlink()
        self.link.symlink_to("two")

    def replace_file(self) -> None:
        (self.two / "new").write_text("replaced\n")
        (self.two / "new").rename(self.file)

    def replace_hidden(self) -> None:
        self.hidden.rename(self.two / "old")
        self.hidden.mkdir()
        (self.hidden / "key").write_text("secret")

    def remove_hidden(self) -> None:
        (self.hidden / "key").unlink()
        self.hidden.rmdir()

    def create_hidden(self) -> None:
        self.hidden.mkdir()
        (self.hidden / "key").write_text("secret")


@needs_sandbox
async def test_a_spare_is_out_of_date_when_the_machine_has_changed_at_its_places(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    places = tuple(str(each) for each in (machine.late, machine.link, machine.file, machine.shown))
    settings = replace(REQUIRED, sandbox_readonly=places)
    changes: list[tuple[Callable[[], None], str, str]] = [
        (machine.create, f"cat {machine.late}/x", "created\n"),
        (machine.retarget, f"readlink {machine.link}", "two\n"),
        (machine.replace_file, f"cat {machine.file}", "replaced\n"),
        (machine.replace_hidden, f"ls {machine.hidden}", ""),
        (machine.remove_hidden, f"ls {machine.shown}", ""),
        (machine.create_hidden, f"ls {machine.hidden}", ""),
    ]
    folder = tmp_path / "rig"
    own = make_driver(Settings(data_dir=folder, objects_dir=machine.hidden, executor=settings), ExecutorPlace(folder))
    async with rig(folder, settings=settings, driver=own) as it:
        for change, command, output in changes:
            spare = await ready(it)
            await asyncio.to_thread(change)
            assert await (await it.run(run_step(command))).log() == output, change.__name__
            await ended(spare.host.process.pid)
            assert not spare.folder.root.exists()


@needs_sandbox
async def test_a_task_waits_for_the_spare_that_is_being_prepared(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=REQUIRED) as it:
        spare = driver(it).spare
        driver(it).expect_tasks(False)
        begun, go = asyncio.Event(), asyncio.Event()
        prepare, made = spare._prepare, list[ReadySandbox]()  # noqa: SLF001  it takes as long as the test wants

        async def slowly() -> ReadySandbox:
            begun.set()
            await go.wait()
            made.append(await prepare())
            return made[-1]

        spare._prepare = slowly  # noqa: SLF001
        driver(it).expect_tasks(True)
        await begun.wait()
        first = await it.assign(task_of("first", run_step(WAITS)))
        while not spare.claimed:  # noqa: ASYNC110  until the task waits
            await asyncio.sleep(0)  # sleeps: lets the others run
        async with running(it):  # another one does not wait
            go.set()
            assert await agent_of(it, first) == made[0].host.process.pid
        (it.task_folder(first) / "home" / "go").touch()
        assert (await first.settled()).phase is SUCCESS


@needs_sandbox
async def test_nothing_is_kept_ready_while_drained_or_after_a_stop(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=REQUIRED) as it:
        assert it.executor is not None
        tasks = it.executor.place.tasks

        async def none_left(spare: ReadySandbox) -> None:
            await driver(it).spare.settled()
            await ended(spare.host.process.pid)
            assert driver(it).spare.ready is None
            assert list(tasks.iterdir()) == []

        spare = await ready(it)
        it.leases.given.touching.clear()
        await say(it, ExecutorDrained())
        await none_left(spare)
        it.leases.given.touching.clear()
        await say(it, ExecutorUndrained())
        spare = await ready(it)
        assert (await it.run(run_step("true"))).task.phase is SUCCESS
        spare = await ready(it)
        await it.executor.drain(None)
        await none_left(spare)
    async with rig(tmp_path, settings=REQUIRED) as it:
        assert it.executor is not None
        spare = await ready(it)
        await it.executor.stop()
        await none_left(spare)
        assert find_process(spare.host.process.parent) is None, "the spawner"


@needs_sandbox
async def test_what_a_killed_executor_kept_ready_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / "executor" / "tasks" / "ready-0123456789abcdef"
    left.joinpath("home").mkdir(parents=True)
    async with rig(tmp_path, settings=REQUIRED) as it:
        spare = await ready(it)
        assert not left.exists()
        assert spare.folder.root.exists()


class Prepared:
    """Resources in the order in which they were made, and what became of them."""

    def __init__(self) -> None:
        self.gates: list[asyncio.Future[bool]] = []
        self.living: set[int] = set()
        self.most = self.made = 0

    async def prepare(self) -> int:
        gate = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        if not await gate:
            raise InternalError("refused", code="refused")
        self.made += 1
        self.living.add(self.made)
        self.most = max(self.most, len(self.living))
        return self.made

    async def discard(self, resource: int) -> None:
        self.living.remove(resource)

    def finish(self, succeeds: bool) -> None:
        for gate in self.gates:
            if not gate.done():
                gate.set_result(succeeds)


OPERATIONS = st.lists(st.sampled_from(["expect", "drop", "take", "cancelled take", "succeed", "fail", "turn"]))


@given(OPERATIONS)
def test_each_resource_is_taken_once_or_discarded_once(operations: list[str]) -> None:
    async def play() -> None:
        made, taken = Prepared(), list[int]()
        spare = Spare(made.prepare, made.discard, 60)

        async def take() -> None:
            if (resource := await spare.take()) is not None:
                taken.append(resource)
                made.living.remove(resource)

        takers = list[asyncio.Task[None]]()
        does: dict[str, Callable[[], Any]] = {
            "expect": lambda: spare.expect(True),
            "drop": lambda: spare.expect(False),
            "take": lambda: takers.append(asyncio.ensure_future(take())),
            "cancelled take": lambda: takers.append(asyncio.ensure_future(_cancelled(take()))),
            "succeed": lambda: made.finish(True),
            "fail": lambda: made.finish(False),
            "turn": lambda: None,
        }
        for operation in operations:
            does[operation]()
            if operation == "turn":
                await asyncio.sleep(0)  # sleeps: lets the others run
            assert made.most <= 2, "one is kept, and one may be about to be discarded"
        await spare.close()
        await asyncio.gather(*takers, return_exceptions=True)
        assert not made.living
        assert len(taken) == len(set(taken))
        assert await spare.take() is None

    asyncio.run(play())


async def test_a_resource_that_no_task_takes_is_discarded_in_time() -> None:
    made = Prepared()
    spare = Spare(made.prepare, made.discard, 0)
    spare.expect(True)
    await asyncio.sleep(0)  # sleeps: until it is being made
    made.finish(True)
    await spare.settled()
    while made.living:  # noqa: ASYNC110  until its time is over
        await asyncio.sleep(0)  # sleeps: lets the others run
    assert spare.ready is None


async def _cancelled(work: Awaitable[None]) -> None:
    """Begin some work, and cancel it."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)  # sleeps: until it waits
    task.cancel()
    await task
