"""What an event of a run's phase carries: the run as it was then, in the form that such events have had for long."""

from __future__ import annotations

from typing import Final

from msgspec.structs import asdict

from runstream.gateway.ports import ReadRun
from runstream.gateway.shapes import RunTaskShape, StepShape
from runstream.gateway.views import run_answer

DATA_VERSION: Final = 1
_RUN = ("id", "name", "counter", "phase", "result", "setup_errors")
_TIMES = ("enqueue_time", "start_time", "end_time")
_TASK = ("id", "name", "level", "skip", "status", "timedout", "waiting_approval", "approved", "start_time", "end_time")
_STEP = ("phase", "exit_status", "start_time", "end_time")


def run_data(read: ReadRun) -> dict[str, object]:
    """A run in version 1 of the data (rule run-10)."""
    run = run_answer(read.record.run, read.config, read.record.executor_tasks).run
    return {
        **{name: getattr(run, name) for name in (*_RUN, *_TIMES)},
        "tasks": {key: _task(task) for key, task in run.tasks.items()},
        "annotations": run.annotations,
    }


def _task(task: RunTaskShape) -> dict[str, object]:
    return {
        **{name: getattr(task, name) for name in _TASK},
        "depends": {key: asdict(depend) for key, depend in task.depends.items()},
        "setup_step": _step(task.setup_step),
        "steps": [_step(step) for step in task.steps],
    }


def _step(step: StepShape) -> dict[str, object]:
    return {name: getattr(step, name) for name in _STEP}
