"""Without a terminal causes come before effects, whatever order events and logs arrive in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runstream.cli.connection import GlobalOptions, set_global_options
from runstream.cli.screen import PlainScreen
from runstream.cli.step_output import StepOutput
from runstream.cli.watching import print_end
from runstream.client import Client, ClientError, Depend, Reason, Run, RunPhase, RunResult, Task
from runstream.lifecycle import StrictTaskGroup
from tests.cli.test_graph import AT, FAILED, RUN, TASK


@pytest.fixture(autouse=True)
def any_service() -> None:
    """No service was named: hints name none."""
    set_global_options(GlobalOptions())


@dataclass
class Logs:
    """Logs whose bytes come when the test lets them."""

    events: dict[tuple[str, int | None], asyncio.Event] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)

    @property
    def logs(self) -> Logs:
        return self

    def arrived(self, task: str, step: int | None = 0) -> asyncio.Event:
        return self.events.setdefault((task, step), asyncio.Event())

    async def follow(self, run_id: str, task_id: str, step: int | None, *, attempt: int) -> AsyncGenerator[bytes, None]:
        if task_id in self.failing:
            raise ClientError("log doesn't exist", kind="not-exist")
        yield f"{task_id}{attempt} beg".encode()
        await self.arrived(task_id, step).wait()
        yield b"ins\nends"


def task(name: str, *parents: str, status: str = "success") -> Task:
    depends = {parent: Depend(parent, ("on_success",)) for parent in parents}
    steps = (replace(FAILED, phase=status),)
    return replace(TASK, id=name, name=name, depends=depends, status=status, steps=steps, attempt=1, attempts=())


def run_of(*tasks: Task, result: RunResult = RunResult.SUCCESS) -> Run:
    tasks_by_id = {one.id: replace(one, start_time=AT, end_time=AT, max_attempts=1) for one in tasks}
    return replace(RUN, tasks=tasks_by_id, phase=RunPhase.FINISHED, result=result)


def output(logs: Logs, group: StrictTaskGroup, log_seconds: float = 3600) -> StepOutput:
    return StepOutput(cast("Client", logs), group, PlainScreen(), log_seconds=log_seconds)


async def test_a_task_ends_after_its_lines_and_what_depends_on_it_comes_after_that(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs = Logs()
    async with StrictTaskGroup() as group:
        shown = output(logs, group)
        shown.follow(run_of(task("build"), task("check", "build"), task("deploy", "build", "check")))
        for name in ("deploy", "check", "build"):  # the effects' logs come first
            logs.arrived(name).set()
            await asyncio.sleep(0)
        await shown.finish()
    assert capfd.readouterr().out.splitlines() == [
        line
        for name in ("build", "check", "deploy")
        for line in (f"{name} | {name}1 begins", f"{name} | ends", f"{name}: success after 0 ms")
    ]


async def test_attempts_and_steps_come_in_their_order(capfd: pytest.CaptureFixture[str]) -> None:
    logs = Logs()
    tried = replace(TASK, id="t", attempts=(replace(TASK.attempts[0], steps=(FAILED, FAILED)),), max_attempts=2)
    ended = replace(tried, status="success", steps=(FAILED,), start_time=AT, end_time=AT)
    logs.arrived("t", 0).set()
    async with StrictTaskGroup() as group:
        shown = output(logs, group)
        shown.follow(replace(RUN, tasks={"t": tried}))
        shown.follow(replace(RUN, tasks={"t": replace(tried, status="running", steps=(FAILED,))}))
        shown.follow(replace(RUN, tasks={"t": ended}))
        logs.arrived("t", 1).set()
        await shown.finish()
    words = [line.partition(" (")[0] for line in capfd.readouterr().out.splitlines()]
    first = ["t | t1 begins", "t | ends"]
    assert words == [
        *first,
        *first,
        "t: tried again",
        "t: running",
        "t | t2 begins",
        "t | ends",
        "t: success after 0 ms",
    ]


@pytest.mark.parametrize(
    ("logs", "missing"),
    [
        (Logs(), "nothing more came for 0 s after its task had ended"),
        (Logs(failing={"build"}), "log doesn't exist"),
    ],
)
async def test_a_log_that_never_comes_is_reported_as_missing(
    capfd: pytest.CaptureFixture[str], logs: Logs, missing: str
) -> None:
    async with StrictTaskGroup() as group:
        shown = output(logs, group, log_seconds=0)
        shown.follow(run_of(task("build"), task("check", "build", status="skipped")))
        await shown.finish()
    lines = capfd.readouterr().out.splitlines()
    said = f"build | (the log of step 1 is missing here: {missing}: runstream log get /project/p/1 build --step 0)"
    assert said in lines
    assert ("build | build1 beg" in lines) != bool(logs.failing)  # a line that was never ended is not lost
    assert lines.index(said) < lines.index("build: success after 0 ms") < lines.index("check: skipped after 0 ms")


async def test_the_reason_why_a_task_waits_is_stored_once(capfd: pytest.CaptureFixture[str]) -> None:
    reasons: Sequence[Reason] = (
        Reason("noExecutorFits", "no executor fits: e1 has not the architecture arm64", ("gpu",), {}),
        Reason("dependency", "it waits for gpu (not started)", ("later",), {}),
    )
    gpu = replace(TASK, id="gpu", name="gpu", attempt=1, attempts=())
    waiting = replace(RUN, tasks={"gpu": gpu, "t": replace(gpu, id="t", name="t", waiting_approval=True)})
    async with StrictTaskGroup() as group:
        shown = output(Logs(), group)
        shown.follow(waiting)
        for _ in range(2):  # nothing happens to a run that waits: no commit comes that would make it be followed again
            shown.explain(waiting, tuple(reasons))
        await shown.finish()
    assert sorted(capfd.readouterr().out.splitlines()) == [
        "  runstream run approve /project/p/1 t",
        "gpu: waits: no executor fits: e1 has not the architecture arm64",
        "t: waits for approval",
    ]


async def test_what_ended_because_of_a_failure_comes_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    logs = Logs()
    never = {"start_time": None, "end_time": None, "steps": ()}
    run = run_of(task("a", status="cancelled"), task("b", "a", status="skipped"), task("c"), task("z", status="failed"))
    tasks = {id_: replace(one, **never) if one.status in ("cancelled", "skipped") else one
             for id_, one in run.tasks.items()}  # fmt: skip
    async with StrictTaskGroup() as group:
        shown = output(logs, group)
        shown.follow(replace(run, tasks=tasks))
        logs.arrived("c").set()
        await asyncio.sleep(0)
        logs.arrived("z").set()
        await shown.finish()
    states = [line.partition(" ")[0] for line in capfd.readouterr().out.splitlines() if ": " in line]
    assert states == ["c:", "z:", "a:", "b:"]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_ended_how_everything_is_shown_and_no_effect_before_its_cause(data: st.DataObject) -> None:
    names = [f"t{number}" for number in range(data.draw(st.integers(1, 7)))]
    tasks = [
        task(
            name,
            *data.draw(st.sets(st.sampled_from(names[:index]))) if index else (),
            status=data.draw(st.sampled_from(["success", "failed", "skipped", "cancelled", "stopped"])),
        )
        for index, name in enumerate(names)
    ]
    said: list[str] = []

    class Recording(PlainScreen):
        def say(self, lines: list[str]) -> None:
            said.extend(line.partition(":")[0] for line in lines)

        def log(self, task: str, lines: list[str], unfinished: str) -> None:
            return

    async def follow() -> None:
        logs = Logs()
        for name in names:
            logs.arrived(name).set()
        async with asyncio.timeout(10), StrictTaskGroup() as group:
            shown = StepOutput(cast("Client", logs), group, Recording())
            shown.follow(run_of(*tasks))
            await shown.finish()

    asyncio.run(follow())
    assert sorted(said) == sorted(names)
    for one in tasks:
        assert all(said.index(parent) < said.index(one.name) for parent in one.depends)


@pytest.mark.parametrize(
    ("statuses", "named"),
    [({"a": "success", "z": "skipped"}, "a"), ({"a": "skipped", "z": "cancelled"}, None)],
)
def test_the_hint_at_the_end_names_a_task_that_has_a_log(
    capfd: pytest.CaptureFixture[str], statuses: dict[str, str], named: str | None
) -> None:
    run = run_of(*(task(name, status=status) for name, status in statuses.items()))
    ran = ("success", "failed")
    tasks = {
        id_: one if one.status in ran else replace(one, start_time=None, steps=(replace(FAILED, start_time=None),))
        for id_, one in run.tasks.items()
    }
    print_end(replace(run, tasks=tasks))
    hints = [line.split()[-1] for line in capfd.readouterr().out.splitlines() if line.startswith("  log ")]
    assert hints == ([named] if named else [])
