from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from runstream import tables
from runstream.commits import Head
from runstream.database import rows
from runstream.domain.executor import ExecutorState, RegisteredExecutor
from runstream.domain.executor_task import ExecutorTask, StepState
from runstream.domain.run import RunState, RunTask, RunTaskStatus
from runstream.events.executor import ExecutorRegistered
from runstream.events.run_config import Container, RunConfig, RunConfigTask, Runtime, Sealed, Step, Volume
from runstream.run_states import RunPhase, RunResult
from runstream.tables import Row

times = st.datetimes(datetime(1970, 1, 2), datetime(2300, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # Hypothesis adds UTC
texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(1 << 63), (1 << 63) - 1)
maybe_times = st.none() | times
heads = st.builds(Head, st.integers(0, 1000), st.integers(0, 1 << 60))
st.register_type_strategy(Mapping, st.dictionaries(texts, texts | st.builds(Sealed, texts, texts)))
run_tasks = st.builds(
    RunTask,
    id=texts,
    name=texts,
    status=st.sampled_from(RunTaskStatus),
    skip=st.booleans(),
    archive_steps=st.lists(st.integers(0, 100)).map(tuple),
    waiting_approval=st.booleans(),
    approved=st.booleans(),
    approvers=st.lists(texts).map(tuple),
    approved_at=maybe_times,
    annotations=st.dictionaries(texts, texts),
    kept=st.booleans(),
    timedout=st.booleans(),
    executor_task_id=texts,
    executor_task_open=st.booleans(),
    archives_pending=st.booleans(),
    start_time=maybe_times,
    end_time=maybe_times,
)
runs = st.builds(
    RunState,
    id=texts,
    name=texts,
    group=st.sampled_from(["/project/a", "/user/é/branch/%_"]),
    run_config=texts,
    annotations=st.dictionaries(texts, texts),
    setup_errors=st.lists(texts).map(tuple),
    phase=st.sampled_from(RunPhase),
    tasks=st.lists(run_tasks, max_size=4).map(lambda tasks: {task.name: task for task in tasks}),
    enqueue_time=times,
    result=st.sampled_from(RunResult),
    stop=st.booleans(),
    counter=st.integers(0, 1 << 60),
    sequence=st.integers(0, 1 << 60),
    numbered=st.booleans(),
    start_time=maybe_times,
    end_time=maybe_times,
    archived=st.booleans(),
)
steps = st.builds(StepState, start_time=maybe_times, end_time=maybe_times)
executor_tasks = st.builds(
    ExecutorTask,
    id=texts,
    executor_id=texts,
    run_id=texts,
    run_task_id=texts,
    task=texts,
    run_config=texts,
    group=texts,
    setup_step=steps,
    steps=st.lists(steps, max_size=4).map(tuple),
    fail_error=texts,
    start_time=maybe_times,
    end_time=maybe_times,
)
registrations = st.builds(
    ExecutorRegistered,
    archs=st.lists(texts).map(tuple),
    labels=st.dictionaries(texts, texts),
    active_tasks_limit=numbers,
    executor_group=texts,
    runstream_version=texts,
)
executors = st.builds(RegisteredExecutor, id=texts, registration=registrations, state=st.sampled_from(ExecutorState))

volumes = st.builds(Volume, tmpfs_size=numbers)
containers = st.builds(Container, volumes=st.lists(volumes, max_size=2).map(tuple))
runtimes = st.builds(Runtime, containers=st.lists(containers, max_size=2).map(tuple))
config_steps = st.builds(Step, depth=numbers)
config_tasks = st.builds(
    RunConfigTask,
    level=numbers,
    task_timeout_interval=numbers,
    runtime=runtimes,
    steps=st.lists(config_steps, max_size=3).map(tuple),
)
configs = st.builds(RunConfig, tasks=st.dictionaries(texts, config_tasks, max_size=3))


@given(runs, heads)
def test_a_run_is_what_its_rows_say(run: RunState, head: Head) -> None:
    row = rows.run_row(run, head, 3)
    assert rows.run_of(row, [rows.run_task_row(run.id, task) for task in run.tasks.values()]) == run
    assert (row.head, row.partition) == (head, 3)


@given(executor_tasks, heads)
def test_an_executor_task_is_what_its_row_says(task: ExecutorTask, head: Head) -> None:
    row = rows.executor_task_row(task, head, 3)
    assert rows.executor_task_of(row) == task
    assert (row.head, row.partition) == (head, 3)


@given(executors, heads)
def test_an_executor_is_what_its_row_says(executor: RegisteredExecutor, head: Head) -> None:
    row = rows.executor_row(executor, head, 3)
    assert rows.executor_of(row) == executor
    assert (row.head, row.partition) == (head, 3)


@given(configs)
def test_a_run_config_is_what_its_row_says(config: RunConfig) -> None:
    assert rows.run_config_of(rows.run_config_row("hash", config, 3).content) == config


def test_a_row_has_the_columns_of_its_table() -> None:
    names = {
        tables.runs: tables.RunRow._fields,
        tables.run_tasks: tables.RunTaskRow._fields,
        tables.task_failures: tables.TaskFailureRow._fields,
        tables.deleted_runs: tables.DeletedRunRow._fields,
        tables.executor_tasks: tables.ExecutorTaskRow._fields,
        tables.executors: tables.ExecutorRow._fields,
        tables.run_configs: tables.RunConfigRow._fields,
        tables.counters: tables.CounterRow._fields,
        tables.config: tables.ConfigRow._fields,
        tables.parked: tables.ParkedRow._fields,
    }
    assert len(names) == len(get_args(Row))
    for table, fields in names.items():
        assert fields == tuple(column.name for column in table.columns if column.name != "at")
