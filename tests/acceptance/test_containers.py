"""Pipelines in containers of a real engine, run by real schedulers and executors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop

from runstream.client import Client, Run
from runstream.client.types import Inputs
from runstream.events.executor_task import ExecutorTaskPhase
from tests.acceptance.deployment import LEASE_SECONDS, deployed
from tests.acceptance.story import Story, reading
from tests.docker_engine import IMAGE, DockerEngine, missing, needs_engine, root_file_system

pytestmark = [needs_engine, pytest.mark.seconds(180)]

PODS = 10
PIPELINE = f"""
runs:
  - name: pipeline
    tasks:
      - name: one
        runtime: &pod
          type: pod
          containers:
            - image: {IMAGE}
            - {{image: {IMAGE}, entrypoint: /bin/nc -ll -p 7000 -e /bin/echo answered}}
        steps:
          - run: until nc 127.0.0.1 7000 </dev/null >answer && [ -s answer ]; do :; done
          - save_to_workspace: {{contents: [{{dest_dir: from-one, paths: [answer]}}]}}
      - name: two
        runtime: &alone {{containers: [{{image: {IMAGE}}}]}}
        steps:
          - run: echo $LOCK >lock
          - restore_cache: {{keys: ['deps-{{{{ sha256sum "lock" }}}}', deps-], dest_dir: cache}}
          - run: mkdir -p cache; [ -e cache/$LOCK ] || echo made for $LOCK >cache/$LOCK; ls cache >listed
          - save_cache: {{key: 'deps-{{{{ sha256sum "lock" }}}}', contents: [{{source_dir: cache}}]}}
          - save_to_workspace: {{contents: [{{dest_dir: from-two, paths: [listed]}}]}}
        environment: {{LOCK: {{from_variable: lock}}}}
      - name: both
        runtime: *alone
        depends: [one, two]
        steps:
          - restore_workspace: {{dest_dir: .}}
          - run: cat from-one/answer from-two/listed
"""
ENDINGS = f"""
runs:
  - name: endings
    tasks:
      - name: fails
        runtime: &pod {{containers: [{{image: {IMAGE}}}]}}
        steps: [run: echo before; exit 3, run: "true"]
      - name: step too long
        runtime: *pod
        steps: [run: {{command: echo begun; sleep 600, step_timeout_interval: 1s}}, run: "true"]
      - name: task too long
        runtime: *pod
        task_timeout_interval: 1s
        steps: [run: echo begun; sleep 600]
      - name: silent
        runtime: *pod
        steps: [run: {{command: echo begun; sleep 600, no_output_timeout: 1s}}]
"""
STOPPED = f"""
runs:
  - name: stopped
    tasks:
      - name: polite
        runtime: &pod {{containers: [{{image: {IMAGE}}}]}}
        steps: [run: {{tty: false, command: "trap 'echo bye; exit 0' TERM; echo begun; while :; do sleep 0.05; done"}}]
      - name: stubborn
        runtime: *pod
        steps: [run: {{tty: false, command: "trap '' TERM; echo begun; while :; do sleep 0.05; done"}}]
"""
MANY = """
runs:
  - name: many
    tasks:
""" + "".join(
    f"""
      - name: t{at}
        runtime:
          containers:
            - image: with-volume:1
            - {{image: with-volume:1, entrypoint: /bin/sleep 600}}
        steps: [run: {{tty: false, command: "echo begun; while :; do sleep 0.2; done"}}]
"""
    for at in range(PODS)
)


@pytest.fixture
def engine(open_path: Path) -> Iterator[DockerEngine]:
    """An engine of this test's own."""
    if missing():
        pytest.skip(missing())
    engine = DockerEngine(open_path / "docker")
    uvloop.run(engine.start())
    yield engine
    uvloop.run(engine.end_leftover())


def _settings(engine: DockerEngine, tasks: int = 4) -> dict[str, str]:
    return {
        "RUNSTREAM_EXECUTOR_ENGINE": engine.url,
        "RUNSTREAM_EXECUTOR_PULL_POLICY": "missing",
        "RUNSTREAM_EXECUTOR_POD_NETWORK": "none",
        "RUNSTREAM_EXECUTOR_SANDBOX": "off",
        "RUNSTREAM_EXECUTOR_STOP_GRACE_SECONDS": "1",
        "RUNSTREAM_EXECUTOR_ACTIVE_TASKS_LIMIT": str(tasks),
    }


async def test_pipelines_run_to_every_kind_of_end_and_bear_an_outage_of_the_engine(
    open_path: Path, engine: DockerEngine
) -> None:
    async with (
        deployed(open_path, executors=2, settings=_settings(engine)) as deployment,
        deployment.client() as client,
        reading(deployment.nats.url) as story,
    ):
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipelines(client))
            group.create_task(_endings(client, story))
            group.create_task(_stop(client, story))
        await _outage(client, story, engine)
        executors = await client.executors.list()
        assert len(executors) == 2
        for executor in executors:
            await _none_left(engine, executor.executor_id)


async def _pipelines(client: Client) -> None:
    caches = []
    for lock in ("first", "first", "second"):
        run = await _created(client, PIPELINE, lock=lock)
        assert await _log(client, run, "both", 1) == (
            "answered\n" + ("first\nsecond\n" if lock == "second" else "first\n")
        )
        caches.append((await _log(client, run, "two", 1), await _log(client, run, "two", 3)))
    miss, hit, prefix = caches
    assert miss[0].startswith("no cache has a key that begins with 'deps-")
    assert miss[1].startswith("saved cache 'deps-")
    assert hit[0].startswith("cache hit: 'deps-")
    assert " for 'deps-'" not in hit[0]
    assert "exists already: nothing is saved" in hit[1]
    assert " for 'deps-', " in prefix[0]
    assert prefix[1].startswith("saved cache 'deps-")


async def _endings(client: Client, story: Story) -> None:
    run = await _created(client, ENDINGS)
    tasks = {task.name: task for task in run.tasks.values()}
    assert {task.status for task in tasks.values()} == {"failed"}
    ended = story.tasks_of(run.id)
    assert ended["fails"].steps[0].exit_status == 3
    assert await _log(client, run, "fails", 0) == "before\n"
    assert {name: tasks[name].timedout for name in tasks} == {
        "fails": False,
        "step too long": True,
        "task too long": True,
        "silent": True,
    }
    for name in ("step too long", "task too long", "silent"):
        assert (await _log(client, run, name, 0)).startswith("begun")


async def _stop(client: Client, story: Story) -> None:
    (run,) = await client.runs.create_from_config(Inputs(STOPPED), group="/project/p/branch/stopped")
    for name in ("polite", "stubborn"):
        await _begun(client, story, run, name)
    await client.runs.stop(run.id)
    run = await _over(client, run)
    assert {task.phase for task in story.tasks_of(run.id).values()} == {ExecutorTaskPhase.STOPPED}
    assert "bye\n" in await _log(client, run, "polite", 0)


async def _outage(client: Client, story: Story, engine: DockerEngine) -> None:
    """The engine is killed: its tasks fail, and later ones wait until it is back."""
    (failed,) = await client.runs.create_from_config(Inputs(STOPPED), group="/project/p/branch/failed")
    await _begun(client, story, failed, "polite")
    await engine.kill()
    assert {task.status for task in (await _over(client, failed)).tasks.values()} == {"failed"}
    assert "the container engine is unreachable: " in await _log(client, failed, "polite", 0)
    later = Inputs(PIPELINE, variables={"lock": "x"})
    (waiting,) = await client.runs.create_from_config(later, group="/project/p/branch/waiting")
    while "its engine is unreachable" not in str((await client.runs.why(waiting.id)).reasons):
        pass
    assert {executor.engine.partition(":")[0] for executor in await client.executors.list()} == {"unreachable"}
    await engine.start()
    assert (await _over(client, waiting)).result == "success"


async def test_ten_pods_of_a_killed_executor_fail_in_time_and_nothing_of_them_stays(
    open_path: Path, docker_engine: DockerEngine, record_property: Callable[[str, object], None]
) -> None:
    engine = docker_engine
    engine.cli("import", "--change", "VOLUME /data", "-", "with-volume:1", stdin=root_file_system())
    owned = ("--label=runstream.io/runstream=true", "--label=runstream.io/executorid=another")
    foreign = [
        engine.cli("run", "-d", "--network=none", *labels, "-v", "/data", IMAGE, "sleep", "600")
        for labels in ((), owned)
    ]
    networks = engine.cli("network", "ls", "-q")
    try:
        before = [_described(engine, container) for container in foreign]
        async with (
            deployed(open_path, executors=1, settings=_settings(engine, PODS)) as deployment,
            deployment.client() as client,
            reading(deployment.nats.url) as story,
        ):
            (run,) = await client.runs.create_from_config(Inputs(MANY), group="/project/p/branch/main")
            for at in range(PODS):
                await _begun(client, story, run, f"t{at}")
            (executor,) = await client.executors.list()
            labels = {"executorid": executor.executor_id}
            containers = [each["ID"] for each in engine.containers(**labels)]
            volumes = engine.cli("inspect", "--format", "{{range .Mounts}}{{.Name}}{{end}}", *containers).split()
            assert (len(containers), len(volumes)) == (2 * PODS, 2 * PODS)
            moment = datetime.now(UTC)
            await deployment.processes["executor0"].kill()
            await story.until(lambda: all(not task.open for task in story.tasks_of(run.id).values()))
            told = [stored.commit.time for stored in story.commits.values() if stored.commit.address.kind == "task"]
            seconds = (max(told) - moment).total_seconds()
            record_property("reported_seconds", seconds)
            print(f"{PODS} tasks were reported in {seconds:.2f} s, with a lease of {LEASE_SECONDS} s")  # noqa: T201
            assert {task.phase for task in story.tasks_of(run.id).values()} == {ExecutorTaskPhase.FAILED}
            assert seconds < LEASE_SECONDS + 5
            # The main containers end without it; services stay until its next start.
            mains = [each["ID"] for each in engine.containers(**labels, containerindex="0")]
            await asyncio.to_thread(engine.cli, "wait", *mains)
            await deployment.processes["executor0"].start()
            assert engine.containers(**labels) == []
            assert set(volumes).isdisjoint(engine.cli("volume", "ls", "-q").split())
            assert engine.cli("network", "ls", "-q") == networks
            assert [_described(engine, container) for container in foreign] == before
    finally:
        engine.cli("rm", "-f", "-v", *foreign)


def _described(engine: DockerEngine, container: str) -> str:
    return engine.cli("inspect", "--format", "{{.State.Status}} {{.State.StartedAt}} {{.Mounts}}", container)


async def _none_left(engine: DockerEngine, executor: str) -> None:
    """Wait until the engine has no container of an executor; one that is being removed may still be listed."""
    while left := engine.containers(executorid=executor):
        with contextlib.suppress(AssertionError):  # it is gone
            await asyncio.to_thread(engine.cli, "wait", *[each["ID"] for each in left])


async def _created(client: Client, config: str, **variables: str) -> Run:
    """Run a configuration to its end."""
    (run,) = await client.runs.create_from_config(
        Inputs(config, variables=variables), group=f"/project/p/branch/{len(config)}"
    )
    return await _over(client, run)


async def _over(client: Client, run: Run) -> Run:
    """Wait until everything of a run is stored."""
    async for commit in client.events.tail(run=run.id):
        if any(event.type == "RunArchived" for event in commit.events):
            return await client.runs.get(run.id, at_least=commit.position)
    raise AssertionError("the events ended")


async def _begun(client: Client, story: Story, run: Run, name: str) -> None:
    """Wait until the step of a task has written its first line."""
    task = run.task(name)
    assert task is not None
    await story.until(
        lambda: name in story.tasks_of(run.id) and story.tasks_of(run.id)[name].steps[0].start_time is not None
    )
    async with client.logs.follow(run.id, task.id, 0) as lines:
        async for _ in lines:
            return


async def _log(client: Client, run: Run, name: str, step: int | None) -> str:
    task = run.task(name)
    assert task is not None
    return (await client.logs.get(run.id, task.id, step)).decode()
