"""Which logs of a run `runstream log get` prints: by task, step, outcome."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from runstream.cli.finding import run_name
from runstream.client import Attempt, Run, Step, Task
from runstream.errors import BadRequestError, NotExistError

Flag = Annotated[bool, Parameter(negative="")]


@dataclass(frozen=True, slots=True)
class StepLog:
    """The log of a step of a task, or of its setup."""

    task: Task
    step: int | None
    """None for the setup."""
    begun: bool


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LogChoice:
    """Which logs of the run or task."""

    step: str | None = None
    """A step by its name or its number, from 0. Default: all steps."""
    setup: Flag = False
    """The log of the setup."""
    failed: Flag = False
    """Only the steps that failed."""
    attempt: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    """Attempt number, from 1; needs a task. Default: the latest."""

    def require_one(self, task: str | None) -> None:
        """Raise BadRequestError for choices that exclude each other."""
        chosen = [f"--{name}" for name in ("setup", "step", "failed") if getattr(self, name) not in (None, False)]
        if len(chosen) > 1:
            raise BadRequestError(f"say either {' or '.join(chosen)}", code="invalidRunTaskStepNumber")
        if self.attempt is not None and task is None:
            raise BadRequestError(
                "--attempt needs a task", code="invalidRunTaskStepNumber", hint="as in `runstream log get RUN TASK`"
            )


def chosen_logs(run: Run, tasks: Sequence[Task], choice: LogChoice) -> list[list[StepLog]]:
    """Return the logs for each task that has some. Raises NotExistError where the choice names none."""
    found = [logs for task in tasks if (logs := _of_task(task, choice))]
    if found or not (choice.failed or choice.step is not None):
        return found
    which = f"task {tasks[0].name!r} of {run_name(run)}" if len(tasks) == 1 else run_name(run)
    if choice.failed:
        raise NotExistError(
            f"no step of {which} failed", code="logDoesNotExist", hint="leave --failed out for all logs"
        )
    raise _no_step(which, tasks, choice.step or "")


def in_order(run: Run) -> list[Task]:
    """Return the tasks in the order in which they started; then those that did not, by their dependencies."""
    started = sorted((task for task in run.tasks.values() if task.start_time), key=_started)
    return started + sorted((task for task in run.tasks.values() if not task.start_time), key=_placed)


def failed_steps(task: Task | Attempt) -> list[int | None]:
    """Return the steps that failed, None for the setup; else the last that began."""
    steps = _steps(task)
    failed = [number for number, step in steps if step.phase == "failed"]
    return failed or [number for number, step in steps if step.start_time is not None][-1:]


def _of_task(task: Task, choice: LogChoice) -> list[StepLog]:
    state: Task | Attempt = next((one for one in task.attempts if one.attempt == choice.attempt), task)
    if choice.failed:
        wanted = failed_steps(state) if task.status == "failed" or isinstance(state, Attempt) else []
    elif choice.setup:
        wanted = [None]
    else:
        wanted = [
            number
            for number, step in enumerate(state.steps)
            if choice.step in (None, step.name) or choice.step == str(number)
        ]
    return [StepLog(task, number, _step(state, number).start_time is not None) for number in wanted]


def _no_step(which: str, tasks: Sequence[Task], wanted: str) -> NotExistError:
    names = list(dict.fromkeys(step.name for task in tasks for step in task.steps))
    near = difflib.get_close_matches(wanted, names, 1)
    there = (
        [f"{number} {_first_line(step.name)}" for number, step in enumerate(tasks[0].steps)] if len(tasks) == 1 else []
    )
    hint = f"did you mean {near[0]!r}? " if near else ""
    return NotExistError(
        f"log doesn't exist: {which} has no step {wanted[:80]!r}",
        code="runTaskStepDoesNotExist",
        hint=hint + (f"its steps are: {', '.join(there)}" if there else "`runstream run get` shows the steps"),
    )


def _steps(state: Task | Attempt) -> list[tuple[int | None, Step]]:
    return [(None, state.setup_step), *enumerate(state.steps)]


def _step(state: Task | Attempt, number: int | None) -> Step:
    return state.setup_step if number is None else state.steps[number]


def _first_line(name: str) -> str:
    return name.splitlines()[0][:60] if name else "(no name)"


def _started(task: Task) -> tuple[object, ...]:
    return task.start_time, task.level, task.name


def _placed(task: Task) -> tuple[int, str]:
    return task.level, task.name
