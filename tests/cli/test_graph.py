"""How the graph shows retried tasks and runs that timed out."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast
from unittest.mock import AsyncMock
from uuid import UUID

import pytest
from msgspec.structs import replace

from runstream.cli import run_commands
from runstream.cli.graph import detail, failure_text, folded, graph_lines, graph_rows, headline, status_text, warnings
from runstream.cli.output import timestamp
from runstream.client import Attempt, Client, Depend, Run, RunPhase, RunResult, Step, Task

AT = datetime(2026, 1, 1, tzinfo=UTC)
NONE = Step("setup", "success", "finished", None, AT, AT)
FAILED = Step("make", "failed", "finished", 2, AT, AT)
SILENT = replace(FAILED, exit_status=None, timedout="no_output")
TASK = Task(
    id="t",
    name="t",
    level=0,
    depends={},
    status="notstarted",
    timedout=False,
    skip=False,
    kept=False,
    waiting_approval=False,
    approved=False,
    approval_time=None,
    executor_id="",
    fail_error="",
    setup_step=NONE,
    steps=(),
    start_time=None,
    end_time=None,
    attempt=2,
    max_attempts=3,
    attempts=(Attempt(1, "failure", "x", "e1", "", NONE, (FAILED,), AT, AT),),
)
RUN = Run(
    id="r",
    sequence=1,
    name="r",
    counter=1,
    group="/project/p/branch/main",
    annotations={},
    phase=RunPhase.RUNNING,
    result=RunResult.UNKNOWN,
    stop=False,
    setup_errors=(),
    tasks_waiting_approval=(),
    enqueue_time=AT,
    start_time=None,
    end_time=None,
    archived=False,
    restart=None,
    can_restart_from_scratch=False,
    can_restart_from_failed_tasks=False,
    tasks={"t": TASK},
)
SOON = datetime(2999, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "word", "said"),
    [
        ({}, "tried again", "attempt 2 of 3: attempt 1 failed, step 1 of 1: make, exit status 2"),
        (
            {"not_before": SOON},
            "tried again",
            f"attempt 2 of 3 at {timestamp(SOON)}: attempt 1 failed, step 1 of 1: make, exit status 2",
        ),
        (
            {"attempts": (replace(TASK.attempts[0], failure="lost", steps=(), fail_error="the executor is gone"),)},
            "tried again",
            "attempt 2 of 3: attempt 1 failed: executor lost, the executor is gone",
        ),
        (
            {"status": "running", "steps": (replace(FAILED, phase="running"),)},
            "running",
            "attempt 2 of 3: step 1 of 1: make",
        ),
        ({"status": "success"}, "success", "attempt 2 of 3"),
        (
            {"status": "failed", "failure": "timeout", "steps": (SILENT,)},
            "failed",
            "attempt 2 of 3: step 1 of 1: make, timed out without output",
        ),
        ({"attempt": 1, "attempts": (), "status": "success"}, "success", ""),
        ({"attempt": 1, "attempts": (), "status": "running"}, "running", "attempt 1 of 3"),
        ({"attempt": 1, "attempts": ()}, "waiting", ""),
    ],
)
def test_which_attempt_it_is_and_what_became_of_the_last(changes: dict[str, object], word: str, said: str) -> None:
    task = replace(TASK, **changes)
    assert (status_text(task), detail(task)) == (word, said)


def test_a_run_that_timed_out_shows_it() -> None:
    over = replace(RUN, phase=RunPhase.FINISHED, result=RunResult.FAILED, timedout=True)
    assert headline(over).plain == "run r #1  failed  timed out"


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (137, "", "exit status 137 (killed: SIGKILL, often for lack of memory)"),
        (127, "", "exit status 127 (a command was not found)"),
        (
            1,
            "step 0 failed: /bin/no cannot be executed: there is no such program",
            "/bin/no cannot be executed: there is no such program",
        ),
        (None, "its files take more than 5 bytes", "its files take more than 5 bytes"),
    ],
)
def test_a_failed_step_says_why(status: int | None, error: str, said: str) -> None:
    task = replace(TASK, status="failed", steps=(replace(FAILED, exit_status=status),), fail_error=error)
    assert failure_text(task) == f"step 1 of 1: make, {said}"


def _run(**parents: str) -> Run:
    """A run whose tasks depend on these, each named by a letter."""
    levels: dict[str, int] = {}
    for name, before in parents.items():
        levels[name] = max([levels[parent] + 1 for parent in before], default=0)
    tasks = {
        name: replace(
            TASK,
            id=name,
            name=name,
            level=levels[name],
            depends={parent: Depend(parent, ()) for parent in before},
            attempt=1,
            max_attempts=1,
            attempts=(),
        )
        for name, before in parents.items()
    }
    return replace(RUN, tasks=tasks)


def test_a_task_stands_below_the_one_it_depends_on_and_below_all_where_there_are_several() -> None:
    run = _run(l="", u="", v="u", b="lu", c="b", d="v")
    assert [(level, task.name) for level, task in graph_rows(run)] == [
        (0, "l"),
        (0, "u"),
        (1, "v"),
        (2, "d"),
        (0, "b"),
        (1, "c"),
    ]
    lines = [line.plain.split() for line in graph_lines(run, 80, AT)]
    assert lines[4] == ["○", "b", "waiting", "after", "l,", "u"]


def test_a_long_chain_of_tasks_does_not_overflow() -> None:
    names = [f"t{number}" for number in range(1500)]
    tasks = {
        name: replace(TASK, id=name, name=name, level=level, depends={before: Depend(before, ())} if before else {})
        for level, (name, before) in enumerate(zip(names, ["", *names], strict=False))
    }
    assert [task.name for _, task in graph_rows(replace(RUN, tasks=tasks))] == names


@pytest.mark.parametrize("height", [1, 3, 10, 21, 100])
def test_tasks_that_do_not_fit_on_the_screen_are_counted(height: int) -> None:
    run = _run(**{f"t{number}": "" for number in range(40)})
    tasks = {**run.tasks, "t20": replace(run.tasks["t20"], status="running", start_time=AT)}
    reasons = dict.fromkeys(tasks, "executor e1 is full: it has 2 of 2 tasks, and 36 tasks come before it")
    lines = [line.plain for line in graph_lines(replace(run, tasks=tasks), 79, AT, height=height, reasons=reasons)]
    shown = [line for line in lines if line.startswith(("○", "●"))]
    assert len(lines) <= height
    if len(shown) < 40:
        assert lines[-1].startswith("… and ")
        assert sum(int(count) for count in lines[-1].split() if count.isdigit()) + len(shown) == 40
    assert height < 4 or any(line.startswith("● t20") for line in lines)
    assert len(shown) >= (height - 4) // 3


@pytest.mark.parametrize("width", [10, 20, 39, 60, 200])
def test_a_folded_command_is_the_same_for_a_shell(width: int) -> None:
    command = "runstream --data-dir '/a b/c' run approve /project/own/3 'to production'"
    lines = folded(command, width)
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)
    assert all(len(line) <= width for line in lines if len(shlex.split(line.removesuffix("\\"))) > 1)


def test_warnings_of_steps_name_their_task_and_step_in_one_line() -> None:
    step = replace(FAILED, phase="success", warnings=("pattern 'a\n/**' selects nothing", "another"))
    tasks = {name: replace(TASK, id=name, name=name, status="success", steps=(NONE, step)) for name in ("a", "b")}
    assert warnings(replace(RUN, tasks=tasks)) == [
        "warning: a, step 1: pattern 'a\\n/**' selects nothing",
        "warning: a, step 1: another",
        "warning: b, step 1: pattern 'a\\n/**' selects nothing",
        "warning: b, step 1: another",
    ]


def test_a_line_break_in_an_annotation_adds_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    run_commands.print_run(replace(RUN, annotations={"no\nte": "one\r\ntwo\nid  forged"}), "")
    shown = [line for line in capsys.readouterr().out.splitlines() if "forged" in line]
    assert [line.split(maxsplit=1) for line in shown] == [["no\\nte", "one\\r\\ntwo\\nid  forged"]]


STEP = Step("make", "running", "running", None, AT, None)
LATER = AT + timedelta(seconds=90)
RUNNING = replace(TASK, status="running", start_time=AT, setup_step=replace(NONE, start_time=AT, end_time=LATER))


@pytest.mark.parametrize(
    ("at", "took", "times"),
    [
        ("2026-01-01T00:02:05+00:00", "2 min 05 s", 3),  # of the run, its task and its step
        ("1:812,40,0,97", "1 min 30 s", 4),  # a position has no time: the last that the run has
    ],
)
async def test_a_run_shown_as_of_a_time_has_taken_its_time_until_then(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], at: str, took: str, times: int
) -> None:
    run = replace(RUN, id=str(UUID(int=1)), start_time=AT, tasks={"t": replace(RUNNING, steps=(STEP,))})
    client = cast("Client", SimpleNamespace(runs=SimpleNamespace(get=AsyncMock(return_value=run))))
    works: list[Callable[[Client], Awaitable[None]]] = []
    monkeypatch.setattr(run_commands, "with_client", works.append)
    run_commands.get_run(run.id, at=at)
    await works[0](client)
    assert capfd.readouterr().out.count(took) == times
