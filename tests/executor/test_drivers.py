"""One suite for all drivers: what a task does is the same wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStopRequested
from runstream.events.run_config import Runtime, SaveContent, Step
from runstream.executor.drivers.noop import NoopRunner
from runstream.ids import new_id
from runstream.settings import ExecutorSettings
from tests.docker_engine import IMAGE, needs_engine
from tests.executor.rig import (
    CONTAINERS,
    HOST,
    SETTINGS,
    Rig,
    Watched,
    config_of,
    pod,
    rig,
    run_step,
    save_step,
    task_of,
)
from tests.kubernetes_api import needs_containers, started
from tests.sandboxes import needs_sandbox

RUNNING = (
    "process",
    pytest.param("sandbox", marks=needs_sandbox),
    pytest.param("docker", marks=needs_engine),
    pytest.param("kubernetes", marks=needs_containers),
)
"""Drivers that run commands."""
ALL = ("noop", *RUNNING)


@dataclass(frozen=True, slots=True)
class Driven:
    """An executor with one of the drivers, and the runtime that it is for."""

    rig: Rig
    runtime: Runtime

    async def run(self, *steps: Step, **fields: object) -> Watched:
        """Run a task with these steps to its end."""
        return await self.rig.run(*steps, runtime=self.runtime, **fields)

    async def assign(self, name: str, *steps: Step, **fields: object) -> Watched:
        """Begin a task with these steps."""
        return await self.rig.assign(task_of(name, *steps, runtime=self.runtime), **fields)  # type: ignore[arg-type]


@pytest.fixture
async def cluster(tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A Kubernetes API server for its driver."""
    if driver != "kubernetes":
        yield
        return
    async with started(tmp_path / "cluster") as api:
        monkeypatch.setenv("KUBECONFIG", str(api.write_config()))
        yield


@pytest.fixture
def settings(driver: str, request: pytest.FixtureRequest, cluster: None) -> ExecutorSettings:
    """The settings of an executor with this driver."""
    settings = replace(SETTINGS, sandbox="require" if driver == "sandbox" else "off", stop_grace_seconds=0.2)
    if driver == "docker":
        settings = replace(settings, engine=request.getfixturevalue("docker_engine").url, **CONTAINERS)
    if driver == "kubernetes":
        settings = replace(settings, engine="kubernetes://")
    return settings


@pytest.fixture
async def running(tmp_path: Path, driver: str, settings: ExecutorSettings) -> AsyncIterator[Driven]:
    """An executor with this driver."""
    async with rig(tmp_path, settings=settings, runner=NoopRunner() if driver == "noop" else None) as found:
        yield Driven(found, pod(IMAGE) if driver in ("docker", "kubernetes") else HOST)


@pytest.mark.parametrize("driver", ALL)
async def test_a_task_ends_with_the_phase_of_each_step(running: Driven) -> None:
    task = (await running.run(run_step("true"), run_step("exit 0"))).task
    assert task.phase is ExecutorTaskPhase.SUCCESS
    assert [step.exit_status for step in task.steps] == [0, 0]
    assert task.setup_step.phase is ExecutorTaskPhase.SUCCESS


@pytest.mark.parametrize("driver", RUNNING)
async def test_a_step_has_its_environment_its_folder_and_its_status(running: Driven) -> None:
    done = await running.run(
        run_step("echo $ONE; pwd | sed s,.*/,,; cat; echo $#", environment={"ONE": "two words"}),
        run_step("tty >/dev/null && echo terminal; exit 3", tty=True),
        run_step("echo never"),
    )
    assert await done.log(0) == "two words\nproject\n0\n"
    assert await done.log(1) == "terminal\n"
    assert [step.exit_status for step in done.task.steps] == [0, 3, None]
    assert done.task.phase is ExecutorTaskPhase.FAILED


@pytest.mark.parametrize("driver", RUNNING)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"working_dir": "nothere"}, "the working directory nothere does not exist\n"),
        ({"shell": "/bin/nothere -e"}, "/bin/nothere cannot be executed: there is no such program\n"),
    ],
    ids=["folder", "program"],
)
async def test_what_cannot_be_started_says_why(running: Driven, fields: dict[str, object], said: str) -> None:
    done = await running.run(run_step("true", **fields))  # type: ignore[arg-type]
    assert await done.log(0) == said
    assert done.task.steps[0].exit_status == 1


@pytest.mark.parametrize(
    ("driver", "tty"),
    [
        ("process", False),
        ("process", True),
        pytest.param("sandbox", False, marks=needs_sandbox),
        pytest.param("sandbox", True, marks=needs_sandbox),
        pytest.param("docker", False, marks=needs_engine),  # there, a terminal ends with its step
    ],
)
async def test_the_last_lines_of_what_a_step_leaves_running_are_in_its_log(running: Driven, tty: bool) -> None:
    command = "mkfifo out; { cat; echo LAST; } <out & exec >out; echo FIRST; exit 3"
    done = await running.run(run_step(command, tty=tty))
    assert await done.log(0) == "FIRST\nLAST\n"
    assert done.task.steps[0].exit_status == 3


@pytest.mark.parametrize("driver", RUNNING)
async def test_a_stop_ends_the_step_with_its_grace_and_then_by_force(running: Driven) -> None:
    polite, stubborn = [
        await running.assign(name, run_step(command))
        for name, command in (
            ("polite", "trap 'echo bye; exit 0' TERM; touch begun; while :; do sleep 0.05; done"),
            ("stubborn", "trap '' TERM; while :; do sleep 0.05; done"),
        )
    ]
    for watched in (polite, stubborn):
        await watched.step_begun()
    for watched in (polite, stubborn):
        await watched.say(ExecutorTaskStopRequested())
        assert (await watched.settled()).phase is ExecutorTaskPhase.STOPPED


@pytest.mark.parametrize("driver", RUNNING)
async def test_files_go_from_one_task_to_the_next(running: Driven) -> None:
    script = "mkdir -p dist/sub; echo a >dist/a.txt; chmod 755 dist/a.txt; ln -s sub dist/link; echo b >dist/sub/b"
    make = task_of("make", run_step(script), save_step("dist/**", "nothere/**"), runtime=running.runtime)
    show = run_step("test -x dist/a.txt; cat dist/a.txt dist/link/b; readlink dist/link")
    restore = Step(type="restore_workspace")
    use = task_of("use", run_step("mkdir dist"), restore, show, runtime=running.runtime, depends=("make",), level=1)
    config, run_id = config_of(make, use), new_id()
    made = await running.rig.assign(make, config=config, run_id=run_id)
    await made.settled()
    assert "pattern 'nothere/**' selects nothing in the working directory" in await made.log(1)
    assert "saved 5 files and folders" in await made.log(1)
    used = await running.rig.assign(use, config=config, run_id=run_id)
    await used.settled()
    assert "restored 5 files and folders of task make" in await used.log(1)
    assert await used.log(2) == "a\nb\nsub\n"


@pytest.mark.parametrize("driver", RUNNING)
async def test_a_cache_is_missed_then_saved_then_hit_by_its_key_and_by_a_prefix(running: Driven) -> None:
    key = '{{ sha256sum "lock" }}-{{ arch }}'
    restore = Step(type="restore_cache", keys=(key, '{{ sha256sum "lock" }}'), dest_dir="cache")
    save = Step(type="save_cache", key=key, contents=(SaveContent("cache", "", ("**",)),))
    step = run_step("cat cache/x || { mkdir cache; echo kept >cache/x; }")
    lock = run_step("echo 1 >lock")
    first = await running.run(lock, restore, step, save, save)
    again = await running.run(lock, restore, step)
    prefix = await running.run(lock, Step(type="restore_cache", keys=("nothing", '{{ sha256sum "lock" }}')))
    assert "no cache has a key that begins with" in await first.log(1)
    assert "saved cache" in await first.log(3)
    assert "exists already: nothing is saved" in await first.log(4)
    assert "cache hit" in await again.log(1)
    assert await again.log(2) == "kept\n"
    assert "cache hit" in await prefix.log(1)
