"""Rows and states: the one translation between them, shared by projecting, loading, reading and fsck.

The row types are those of `runstream.tables`. Values of `json` columns are their text, so that rows compare exactly.
`X_row` makes the row of a state, `X_of` the state of a row; nothing is lost in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson
from msgspec.structs import asdict
from sqlalchemy import ARRAY, ColumnElement, Text, func, literal

from runstream.commits import Head
from runstream.domain.executor import Executor, ExecutorState
from runstream.domain.executor_task import ExecutorTask, StepState
from runstream.domain.run import Attempt, Restart, Run, RunPhase, RunTask, RunTaskStatus
from runstream.events.executor import ExecutorRegistered
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run import RunResult
from runstream.events.run_config import RunConfig
from runstream.subjects import group_root
from runstream.tables import ExecutorRow, ExecutorTaskRow, Row, RunConfigRow, RunRow, RunTaskRow


def any_of(keys: Iterable[str]) -> ColumnElement[str]:
    """Return `ANY` of these keys as one array parameter."""
    return func.any(literal(sorted(keys), ARRAY(Text)))


_TEXTS = msgspec.json.Decoder(tuple[str, ...])
_NUMBERS = msgspec.json.Decoder(tuple[int, ...])
_ANNOTATIONS = msgspec.json.Decoder(dict[str, str])
_STEP = msgspec.json.Decoder(StepState)
_STEPS = msgspec.json.Decoder(tuple[StepState, ...])
_REGISTRATION = msgspec.json.Decoder(ExecutorRegistered)
_RESTART = msgspec.json.Decoder(Restart | None)
_ATTEMPTS = msgspec.json.Decoder(tuple[Attempt, ...])
_WORKSPACES = msgspec.json.Decoder(dict[str, str])
_CONFIG = msgspec.json.Decoder(RunConfig)
_TRACKED = ("partition", "version", "position")


def run_row(run: Run, head: Head, partition: int) -> RunRow:
    """Return the row of a run; its tasks have rows of their own."""
    return RunRow(
        run.id,
        partition,
        head.version,
        head.sequence,
        run.sequence,
        run.counter,
        run.numbered,
        group_root(run.group),
        run.group,
        run.name,
        run.run_config,
        _json(run.annotations) if run.annotations else "{}",
        _json(run.setup_errors) if run.setup_errors else "[]",
        run.phase.value,
        run.result.value,
        run.stop,
        run.timedout,
        run.reason,
        run.priority,
        run.request,
        _json(run.restart) if run.restart is not None else "null",
        run.paused_at,
        run.paused_for,
        run.enqueue_time,
        run.start_time,
        run.end_time,
        run.archived,
    )


def run_of(row: RunRow, tasks: Iterable[RunTaskRow]) -> Run:
    """Return the run of these rows."""
    return Run(
        tasks={task.name: run_task_of(task) for task in tasks},
        **_values(
            row,
            (*_TRACKED, "counter_group"),
            annotations=_ANNOTATIONS.decode(row.annotations),
            setup_errors=_TEXTS.decode(row.setup_errors),
            phase=RunPhase(row.phase),
            result=RunResult(row.result),
            restart=_RESTART.decode(row.restart),
        ),
    )


def run_task_row(run_id: str, task: RunTask) -> RunTaskRow:
    """Return the row of a run task."""
    return RunTaskRow(
        run_id,
        task.name,
        task.id,
        task.status.value,
        task.skip,
        _json(task.archive_steps) if task.archive_steps else "[]",
        task.waiting_approval,
        task.approved,
        _json(task.approvers) if task.approvers else "[]",
        task.approved_at,
        _json(task.annotations) if task.annotations else "{}",
        task.kept,
        task.timedout,
        task.failure,
        task.attempt,
        _json(task.attempts) if task.attempts else "[]",
        task.not_before,
        task.executor_task_id,
        task.executor_task_open,
        task.withdrawn,
        task.archives_pending,
        task.start_time,
        task.end_time,
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
            annotations=_ANNOTATIONS.decode(row.annotations),
            attempts=_ATTEMPTS.decode(row.attempts),
        )
    )


def executor_task_row(task: ExecutorTask, head: Head, partition: int) -> ExecutorTaskRow:
    """Return the row of an executor task."""
    return ExecutorTaskRow(
        task.id,
        partition,
        head.version,
        head.sequence,
        task.executor_id,
        task.run_id,
        task.run_task_id,
        task.task,
        task.run_config,
        task.group,
        task.counter,
        task.timeout,
        _json(task.setup_step),
        _json(task.steps),
        task.attempt,
        _json(task.workspaces) if task.workspaces else "{}",
        task.phase.value,
        task.stop,
        task.timedout,
        task.interrupted,
        task.lost,
        task.fail_error,
        task.start_time,
        task.end_time,
    )


def executor_task_of(row: ExecutorTaskRow) -> ExecutorTask:
    """Return the executor task of a row."""
    return ExecutorTask(
        **_values(
            row,
            _TRACKED,
            setup_step=_STEP.decode(row.setup_step),
            steps=_STEPS.decode(row.steps),
            workspaces=_WORKSPACES.decode(row.workspaces),
            phase=ExecutorTaskPhase(row.phase),
        )
    )


def executor_row(executor: Executor, head: Head, partition: int) -> ExecutorRow:
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


def executor_of(row: ExecutorRow) -> Executor:
    """Return the executor of a row."""
    return Executor(
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
