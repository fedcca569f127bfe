"""What is said of a task that is tried again, and of a run whose time was up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from runstream.cli.graph import detail, headline, how_failed, word_for
from runstream.cli.output import moment
from runstream.client import Attempt, Run, RunPhase, RunResult, Step, Task

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
            f"attempt 2 of 3 at {moment(SOON)}: attempt 1 failed, step 1 of 1: make, exit status 2",
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
            "failed: timed out",
            "attempt 2 of 3: step 1 of 1: make, silent for too long",
        ),
        ({"attempt": 1, "attempts": (), "status": "success"}, "success", ""),
        ({"attempt": 1, "attempts": (), "status": "running"}, "running", "attempt 1 of 3"),
        ({"attempt": 1, "attempts": ()}, "waiting", ""),
    ],
)
def test_which_attempt_it_is_and_what_became_of_the_last(changes: dict[str, object], word: str, said: str) -> None:
    task = replace(TASK, **changes)  # type: ignore[arg-type]
    assert (word_for(task), detail(task)) == (word, said)


def test_a_run_whose_time_was_up_says_so() -> None:
    over = replace(RUN, phase=RunPhase.FINISHED, result=RunResult.FAILED, timedout=True)
    assert headline(over).plain == "run r #1  failed  its time was up"


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
    assert how_failed(task) == f"step 1 of 1: make, {said}"
