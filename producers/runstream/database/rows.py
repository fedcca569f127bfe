"""Rows and states: the one translation between them, shared by projecting, loading, reading and fsck.

The row types are those of `runstream.tables`. Values of `json` columns are their text, so that rows compare exactly.
`X_row` makes the row of a state, `X_of` the state of a row; nothing is lost in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter, itemgetter
from typing import Any

import msgspec
import orjson
from msgspec.structs import asdict
from sqlalchemy import ARRAY, ColumnElement, Text, func, literal

from runstream.commits import Head
from runstream.domain.executor import ExecutorState, RegisteredExecutor
from runstream.domain.executor_task import ExecutorTask, StepState
from runstream.domain.run import FailedAttempt, RestartOrigin, RunState, RunTask, RunTaskStatus
from runstream.events.executor import ExecutorRegistered
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import RunConfig
from runstream.run_states import RunPhase, RunResult
from runstream.subjects import group_root
from runstream.tables import (
    DeletedRunRow,
    ExecutorRow,
    ExecutorTaskRow,
    Row,
    RunConfigRow,
    RunRow,
    RunTaskRow,
    TaskFailureRow,
)


def any_of(keys: Iterable[str]) -> ColumnElement[str]:
    """Return `ANY` of these keys as one array parameter."""
    return func.any(literal(sorted(keys), ARRAY(Text)))


_TEXTS = msgspec.json.Decoder(tuple[str, ...])
_NUMBERS = msgspec.json.Decoder(tuple[int, ...])
_TEXTS_BY_NAME = msgspec.json.Decoder(dict[str, str])
_STEP = msgspec.json.Decoder(StepState)
_STEPS = msgspec.json.Decoder(tuple[StepState, ...])
_REGISTRATION = msgspec.json.Decoder(ExecutorRegistered)
_RESTART = msgspec.json.Decoder(RestartOrigin | None)
_ATTEMPTS = msgspec.json.Decoder(tuple[FailedAttempt, ...])
_CONFIG = msgspec.json.Decoder(RunConfig)
_TRACKED = ("partition", "version", "position")


def _writer(row: Any, *others: str) -> Callable[..., Any]:
    """Return a function that makes the row of a state, whose fields are its columns but for the others.

    It takes the state and the values of the others. All of its work is done in C: projecting makes many rows.
    """
    same = [name for name in row._fields if name not in others]
    fields, order = attrgetter(*same), itemgetter(*map([*same, *others].index, row._fields))
    return lambda state, *values: row._make(order((*fields(state), *values)))


_run_row: Callable[..., RunRow] = _writer(
    RunRow, *_TRACKED, "counter_group", "annotations", "setup_errors", "phase", "result", "restart"
)
_run_task_row: Callable[..., RunTaskRow] = _writer(
    RunTaskRow, "run_id", "status", "archive_steps", "approvers", "annotations", "attempts"
)
_executor_task_row: Callable[..., ExecutorTaskRow] = _writer(
    ExecutorTaskRow, *_TRACKED, "setup_step", "steps", "workspaces", "phase"
)


def run_row(run: RunState, head: Head, partition: int) -> RunRow:
    """Return the row of a run; its tasks have rows of their own."""
    return _run_row(
        run,
        partition,
        head.version,
        head.sequence,
        group_root(run.group),
        _json(run.annotations) if run.annotations else "{}",
        _json(run.setup_errors) if run.setup_errors else "[]",
        run.phase.value,
        run.result.value,
        _json(run.restart) if run.restart is not None else "null",
    )


def run_of(row: RunRow, tasks: Iterable[RunTaskRow]) -> RunState:
    """Return the run of these rows."""
    return RunState(
        tasks={task.name: run_task_of(task) for task in tasks},
        **_values(
            row,
            (*_TRACKED, "counter_group", "holds_logs", "holds_archives"),
            annotations=_TEXTS_BY_NAME.decode(row.annotations),
            setup_errors=_TEXTS.decode(row.setup_errors),
            phase=RunPhase(row.phase),
            result=RunResult(row.result),
            restart=_RESTART.decode(row.restart),
        ),
    )


def run_task_row(run_id: str, task: RunTask) -> RunTaskRow:
    """Return the row of a run task."""
    return _run_task_row(
        task,
        run_id,
        task.status.value,
        _json(task.archive_steps) if task.archive_steps else "[]",
        _json(task.approvers) if task.approvers else "[]",
        _json(task.annotations) if task.annotations else "{}",
        _json(task.attempts) if task.attempts else "[]",
    )


def run_task_of(row: RunTaskRow) -> RunTask:
    """Return the run task of a row."""
    return RunTask(
        **_values(
            row,
            ("run_id",),
            status=RunTaskStatus(row.status),
            archive_steps=_NUMBERS.decode(row.archive_steps),
            approvers=_TEXTS.decode(row.approvers),
            annotations=_TEXTS_BY_NAME.decode(row.annotations),
            attempts=_ATTEMPTS.decode(row.attempts),
        )
    )


_MAX_COMMIT = 64


def commit_of(run: RunState) -> str:
    """Return the hash of a run's commit, from its annotations; empty for none, and for what no hash can be."""
    commit = run.annotations.get("commit_sha", "")
    return commit if len(commit) <= _MAX_COMMIT and "\0" not in commit else ""


def task_failure_row(run: RunState, task: RunTask, partition: int) -> TaskFailureRow | None:
    """Return the row of the failures of a run task; None without one."""
    if task.kept:
        return None
    reasons = [attempt.reason for attempt in task.attempts]
    reasons += [task.failure] if task.failure else []
    if not (failures := sum(reason != "lost" for reason in reasons)):
        return None
    return TaskFailureRow(
        run.id,
        task.name,
        partition,
        group_root(run.group),
        run.group,
        run.name,
        run.run_config,
        commit_of(run),
        run.sequence,
        failures,
        task.status is RunTaskStatus.SUCCESS,
        task.end_time,
    )


def deleted_run_row(run: RunState, partition: int) -> DeletedRunRow:
    """Return the row by which a deleted run is found by its number."""
    return DeletedRunRow(run.id, partition, group_root(run.group), run.counter, run.group)


def task_failure_rows(run: RunState, partition: int) -> Iterator[TaskFailureRow]:
    """Return the rows of the failures of all tasks of a run."""
    rows = (task_failure_row(run, task, partition) for task in run.tasks.values())
    return (row for row in rows if row is not None)


def executor_task_row(task: ExecutorTask, head: Head, partition: int) -> ExecutorTaskRow:
    """Return the row of an executor task."""
    return _executor_task_row(
        task,
        partition,
        head.version,
        head.sequence,
        _json(task.setup_step),
        _json(task.steps),
        _json(task.workspaces) if task.workspaces else "{}",
        task.phase.value,
    )


def executor_task_of(row: ExecutorTaskRow) -> ExecutorTask:
    """Return the executor task of a row."""
    return ExecutorTask(
        **_values(
            row,
            _TRACKED,
            setup_step=_STEP.decode(row.setup_step),
            steps=_STEPS.decode(row.steps),
            workspaces=_TEXTS_BY_NAME.decode(row.workspaces),
            phase=ExecutorTaskPhase(row.phase),
        )
    )


def executor_row(executor: RegisteredExecutor, head: Head, partition: int) -> ExecutorRow:
    """Return the row of an executor."""
    return ExecutorRow(
        executor.id,
        partition,
        head.version,
        head.sequence,
        _json(executor.registration),
        executor.state.value,
        executor.draining,
        executor.last_seen,
    )


def executor_of(row: ExecutorRow) -> RegisteredExecutor:
    """Return the executor of a row."""
    return RegisteredExecutor(
        row.id, _REGISTRATION.decode(row.registration), ExecutorState(row.state), row.draining, row.last_seen
    )


def run_config_row(content_hash: str, config: RunConfig, partition: int) -> RunConfigRow:
    """Return the row of a run config."""
    return RunConfigRow(content_hash, partition, _json(config))


def run_config_of(content: str) -> RunConfig:
    """Return the run config of a row's content."""
    return _CONFIG.decode(content)


def _values(row: Row, others: Iterable[str], **decoded: object) -> dict[str, Any]:
    """Return the values of a state: the columns of its row but the others, some of them decoded."""
    values = row._asdict() | decoded
    for name in others:
        del values[name]
    return values


def _json(value: object) -> str:
    return orjson.dumps(value, default=asdict, option=orjson.OPT_SORT_KEYS).decode()
