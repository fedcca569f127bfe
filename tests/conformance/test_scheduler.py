"""scheduler_test.json: moving tasks on, tasks to run, choosing an executor.

"The first executor that fits" is "one that fits" here: ours spreads. An executor that is not alive has no
lease, so it has no offer to choose from.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from runstream.domain.advance import advance_run_tasks, tasks_to_run
from runstream.domain.executor import Offer, choose_executor, demand_of
from runstream.domain.run import RunState, RunTask, RunTaskStatus, evolve
from runstream.events.run_config import Container, Depend, RunConfig, RunConfigTask, Runtime
from runstream.run_states import RunPhase, RunResult

from .cases import cases

AT = datetime(2026, 1, 1, tzinfo=UTC)


def config_of(case: dict[str, Any]) -> RunConfig:
    tasks = {name: config_task(task) for name, task in case["run_config"]["tasks"].items()}
    return RunConfig("run", tasks, {}, {}, "")


def config_task(task: dict[str, Any]) -> RunConfigTask:
    runtime = task["runtime"]
    containers = tuple(
        Container(c.get("image", ""), {}, "", c.get("privileged", False), "", ())
        for c in runtime.get("containers") or ()
    )
    return RunConfigTask(
        name=task["name"],
        level=0,
        depends=tuple(Depend(d["task_id"], tuple(d["conditions"])) for d in (task["depends"] or {}).values()),
        runtime=Runtime(runtime["type"], runtime.get("arch", ""), containers),
        environment={},
        working_dir="",
        shell="",
        user="",
        steps=(),
        ignore_failure=task.get("ignore_failure", False),
        skip=task.get("skip", False),
        needs_approval=task.get("needs_approval", False),
        docker_registries_auth={},
        task_timeout_interval=0,
    )


def run_of(data: dict[str, Any], config: RunConfig, scheduled: list[dict[str, Any]]) -> RunState:
    given = {task["run_task_id"]: task["id"] for task in scheduled}
    tasks = {
        name: RunTask(
            id=name,
            name=name,
            status=RunTaskStatus(task["status"]),
            skip=config.tasks[name].skip,
            waiting_approval=task.get("waiting_approval", False),
            approved=task.get("approved", False),
            executor_task_id=given.get(name, ""),
        )
        for name, task in data["tasks"].items()
    }
    return RunState(
        id="run",
        name="run",
        group="/project/p/branch/main",
        run_config="",
        annotations={},
        setup_errors=(),
        phase=RunPhase(data.get("phase", "running")),
        tasks=tasks,
        enqueue_time=AT,
        result=RunResult(data.get("result", "unknown")),
        stop=data.get("stop", False),
    )


@cases("scheduler_test.json", "advance_run_tasks")
def test_advance_run_tasks(case: dict[str, Any]) -> None:
    config = config_of(case)
    scheduled = case.get("scheduled_executor_tasks") or []
    run = run_of(case["run"], config, scheduled)
    for event in advance_run_tasks(run, config):
        run = evolve(run, event, AT)
    assert run == run_of(case["expect"]["run"], config, scheduled)


@cases("scheduler_test.json", "get_tasks_to_run")
def test_tasks_to_run(case: dict[str, Any]) -> None:
    config = config_of(case)
    run = run_of(case["run"], config, [])
    assert sorted(tasks_to_run(run, config, AT)) == sorted(case["expect"]["task_ids"] or [])


@cases("scheduler_test.json", "choose_executor")
def test_choose_executor(case: dict[str, Any]) -> None:
    offers = {
        executor["executor_id"]: Offer(
            executor["executor_id"],
            tuple(executor.get("archs") or ()),
            {},
            executor.get("allow_privileged_containers", False),
            allow_host=True,
            allow_pod=True,
            active_tasks_limit=executor.get("active_tasks_limit", 0),
            open_tasks={},
        )
        for executor in case["executors"]
        if executor["update_time"]["seconds_from_now"] > -60
    }
    loads = {executor["executor_id"]: executor.get("active_tasks", 0) for executor in case["executors"]}
    assert choose_executor(offers, loads, demand_of(config_task(case["task"]).runtime)) == case["expect"]["executor_id"]
