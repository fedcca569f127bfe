"""A restarted run, with real processes: only unsuccessful tasks run again; kept logs can be read from both runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from runstream.client import Client, ClientError, Run
from runstream.objects import PosixObjects
from runstream.objects.references import Shared
from tests.acceptance.deployment import Deployment, Done, deployed, in_one_process
from tests.objects.references import referring_runs

GROUP = "/project/web/branch/main"
CONFIG = """
runs:
  - name: pipeline
    tasks:
      - name: build
        runtime: {type: host}
        steps:
          - run: {command: 'echo build >> "$MARKS"; echo built by $$; echo wheel > wheel', tty: false}
          - save_to_workspace: {contents: [{source_dir: ".", paths: [wheel, "nothere/**"]}]}
      - {name: lint, runtime: {type: host}, steps: [{run: {command: 'echo lint >> "$MARKS"', tty: false}}]}
      - name: test
        runtime: {type: host}
        depends: [build]
        steps:
          - restore_workspace: {dest_dir: "."}
          - run: {command: 'echo test >> "$MARKS"; cat wheel; test -e "$MARKS.fixed"', tty: false}
      - name: deploy
        runtime: {type: host}
        depends: [test, lint]
        steps: [{run: {command: 'echo deploy >> "$MARKS"', tty: false}}]
      - name: report
        runtime: {type: host}
        depends: [{task: test, conditions: [on_failure]}]
        steps: [{run: {command: 'echo report >> "$MARKS"', tty: false}}]
"""


async def test_only_what_did_not_succeed_runs_again(open_path: Path) -> None:
    marks = open_path / "marks"
    components = "gateway,scheduler,executor,datamanager"
    one = in_one_process(open_path, "--sandbox", "off", components=components)
    async with one as deployment, deployment.client() as client:
        followed = await _create(deployment, open_path)
        assert followed.code == 1
        (first,) = [await client.runs.get(run.id) for run in (await client.runs.page()).runs]
        warning = "warning: build, step 1: pattern 'nothere/**' selects nothing in the working directory"
        assert warning in followed.out
        assert warning in (await deployment.run("run", "get", first.id)).out
        assert _ran(marks) == Counter(build=1, lint=1, test=1, report=1)

        again = await deployment.run("run", "restart", first.id, "--from-failed", "--follow")
        assert again.code == 1, again  # nothing was fixed
        assert _ran(marks) == Counter(build=1, lint=1, test=2, report=2)
        second = await _latest(client)
        assert second.restart is not None
        assert (second.restart.run_id, second.counter) == (first.id, 2)
        assert _kept(second) == {"build", "lint"}
        assert {task.name: task.status for task in second.tasks.values()} == {
            "build": "success",
            "lint": "success",
            "test": "failed",
            "deploy": "skipped",
            "report": "success",
        }
        assert "wheel\n" in (await deployment.run("log", "get", second.id, "test", "--step", "1")).out
        logs = [await deployment.run("log", "get", run.id, "build") for run in (first, second)]
        assert logs[0].out.startswith("built by ")
        assert logs[0] == logs[1]

        _fix(marks)
        fixed = await deployment.run("run", "restart", second.id, "--from-failed", "--follow")
        assert fixed.code == 0, fixed
        assert _ran(marks) == Counter(build=1, lint=1, test=3, report=2, deploy=1)
        third = await _latest(client)
        assert _kept(third) == {"build", "lint"}
        assert (await deployment.run("log", "get", third.id, "build", "--follow")).out == logs[0].out

        await deployment.gateway.stop()
        await deployment.gateway.start()
        for run in (first, second, third):
            assert (await deployment.run("log", "get", run.id, "build")).out == logs[0].out
        assert (await deployment.fsck()).code == 0
        await _deleted_with_the_last(deployment, open_path, first, second, third)


async def _deleted_with_the_last(deployment: Deployment, folder: Path, first: Run, second: Run, third: Run) -> None:
    """What is shared stays as long as one of the three runs refers to it."""
    objects = PosixObjects(folder / "objects")
    build = first.task("build")
    assert build is not None
    logs, archives = Shared("logs", build.id), Shared("archives", build.id)
    for shared in (logs, archives):
        assert set(await referring_runs(objects, shared)) == {first.id, second.id, third.id}
    assert (await deployment.run("run", "delete", first.id, third.id, "--yes")).code == 0
    await until(lambda: referring_runs(objects, logs), [second.id])
    await until(lambda: referring_runs(objects, archives), [second.id])
    assert (await deployment.run("log", "get", second.id, "build")).out.startswith("built by ")
    assert (await deployment.run("run", "get", first.id)).code == 1
    assert (await deployment.run("run", "get", second.id)).out.count("success") >= 3
    assert (await deployment.run("run", "delete", second.id, "--yes")).code == 0
    await until(lambda: stored(objects), [])
    await _found_by_their_numbers(deployment, first, second, third)
    assert (await deployment.fsck()).code == 0


async def _found_by_their_numbers(deployment: Deployment, *runs: Run) -> None:
    """Deleted runs: command and API say when each was deleted."""
    async with deployment.client() as client:
        for run in runs:

            async def refusal(run: Run = run) -> list[str]:
                try:
                    return [(await client.runs.by_number(run.group, run.counter)).id]
                except ClientError as error:
                    return [error.code]

            await until(refusal, ["runDeleted"])
            got = await deployment.run("run", "get", f"{run.group}/{run.counter}")
            assert got.code == 1
            assert f"run {run.id} was deleted by a user at " in got.err


async def stored(objects: PosixObjects) -> list[str]:
    """The paths of all logs and archives, and of their references."""
    return [one.path for kind in ("logs/", "workspacearchives/") async for one in objects.list(kind)]


async def until(ask: Callable[[], Awaitable[list[str]]], expected: list[str]) -> None:
    """Wait until the storage has what is expected."""
    for _ in range(400):
        if (found := await ask()) == expected:
            return
        await asyncio.sleep(0.05)  # sleeps: the storage announces nothing
    assert found == expected


async def test_green_tasks_run_again_with_or_without_what_depends_on_them(open_path: Path) -> None:
    marks = open_path / "marks"
    _fix(marks)
    async with in_one_process(open_path, "--sandbox", "off") as deployment, deployment.client() as client:
        assert (await _create(deployment, open_path)).code == 0
        first = await _latest(client)
        restart = ("run", "restart", first.id, "--follow", "--task")
        assert (await deployment.run(*restart, "build")).code == 0
        assert _ran(marks) == Counter(build=2, lint=1, test=1, deploy=1)
        assert (await deployment.run(*restart, "test", "--and-descendants")).code == 0
        assert _ran(marks) == Counter(build=2, lint=1, test=2, deploy=2)
        assert _kept(await _latest(client)) == {"build", "lint"}
        assert (await deployment.run("run", "restart", first.id, "--follow")).code == 0
        assert _ran(marks) == Counter(build=3, lint=2, test=3, deploy=3)


async def test_the_same_key_at_two_gateways_and_after_a_kill_is_one_run(open_path: Path) -> None:
    async with deployed(open_path, "--sandbox", "off", schedulers=1, executors=1) as deployment:
        other = deployment.process("other", "gateway")
        await other.start()
        words = ("run", "create", "--config", str(_config(open_path)), "--group", GROUP, "--env", "MARKS=/dev/null")
        keyed = (*words, "--idempotency-key", "once", "--output", "json")
        asked = [deployment.run(*keyed) for _ in range(3)]
        deployment.processes["gateway"], deployment.processes["other"] = other, deployment.gateway
        asked += [deployment.run(*keyed) for _ in range(3)]
        answers = await asyncio.gather(*asked)
        assert [answer.code for answer in answers] == [0] * 6
        assert len({_first_id(answer) for answer in answers}) == 1
        for process in (deployment.processes["gateway"], deployment.processes["other"]):
            await process.kill()
            await process.start()
        assert _first_id(await deployment.run(*keyed)) == _first_id(answers[0])
        refused = await deployment.run(*keyed, "--env", "MORE=1")
        assert (refused.code, "was used for another request" in refused.err) == (1, True)
        async with deployment.client() as client:
            assert len((await client.runs.page()).runs) == 1


def _config(folder: Path) -> Path:
    file = folder / "config.yml"
    file.write_text(CONFIG)
    return file


async def _create(deployment: Deployment, folder: Path) -> Done:
    words = ("run", "create", "--config", str(_config(folder)), "--group", GROUP, "--env", f"MARKS={folder / 'marks'}")
    return await deployment.run(*words, "--follow")


async def _latest(client: Client) -> Run:
    return await client.runs.get((await client.runs.page(limit=1)).runs[0].id)


def _fix(marks: Path) -> None:
    """Let the task `test` succeed from now on."""
    Path(f"{marks}.fixed").touch()


def _ran(marks: Path) -> Counter[str]:
    """How often each task ran."""
    return Counter(marks.read_text().split())


def _kept(run: Run) -> set[str]:
    return {task.name for task in run.tasks.values() if task.kept}


def _first_id(done: Done) -> str:
    return next(line for line in done.out.splitlines() if '"id"' in line)
