"""Retention in a service: runs go by count, logs by age, and their objects with them; the log keeps all of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from runstream.client import Client, ClientError, Run
from runstream.objects import BytesSource, PosixObjects, paths
from tests.acceptance.deployment import Deployment, in_one_process

COMPONENTS = "gateway,scheduler,executor,datamanager"
UNKNOWN = "00000000-0000-7000-8000-000000000000"
"""The id of a run and of a task that are in no log."""
SETTINGS = """
retention:
  runs: {keep: 2}
  groups: {/project/short: "runs.keep=100 logs=1s archives=1s"}
"""
CONFIG = """
runs:
  - name: pipeline
    tasks:
      - name: build
        runtime: {type: host}
        steps:
          - run: {command: 'echo built; echo wheel > wheel', tty: false}
          - save_to_workspace: {contents: [{source_dir: ".", paths: [wheel]}]}
      - name: test
        runtime: {type: host}
        depends: [build]
        steps: [{restore_workspace: {dest_dir: "."}}, {run: {command: 'cat wheel; false', tty: false}}]
"""
T = TypeVar("T")


async def until(ask: Callable[[], Awaitable[T]], accept: Callable[[T], bool]) -> T:
    """Ask again until the answer is accepted."""
    for _ in range(600):
        if accept(found := await ask()):
            return found
        await asyncio.sleep(0.05)  # sleeps: no event says that objects are gone
    raise AssertionError(found)


async def created(deployment: Deployment, client: Client, folder: Path, project: str) -> Run:
    file = folder / "ci.yml"
    file.write_text(CONFIG)
    group = f"/project/{project}/branch/main"
    done = await deployment.run("run", "create", "--config", str(file), "--group", group, "--follow")
    assert done.code == 1, done
    (latest,) = (await client.runs.page(groups=[group], limit=1)).runs
    return await client.runs.get(latest.id)


async def spoil(folder: Path, run: Run, deleted: Run) -> None:
    """Lose a log and a reference, and leave a log and a reference that were removed; the same of an unknown run."""
    tasks = {task.name: task.id for task in run.tasks.values()}
    gone = next(task.id for task in deleted.tasks.values())
    (folder / "data" / paths.step_log(tasks["build"], 0)).unlink()
    (folder / "data" / paths.log_reference(tasks["test"], run.id)).unlink()
    unknown = (paths.step_log(UNKNOWN, 0), paths.log_reference(tasks["build"], UNKNOWN))
    for path in (paths.step_log(gone, 0), paths.log_reference(tasks["test"], deleted.id), *unknown):
        (folder / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / path).touch()


@pytest.mark.seconds(150)
async def test_runs_go_by_count_and_logs_by_age(open_path: Path) -> None:
    settings = open_path / "settings.yml"
    settings.write_text(SETTINGS)
    objects = PosixObjects(open_path / "objects")

    async def owners(run: Run) -> list[str]:
        """The paths of the objects of the tasks that this run ran."""
        ids = {task.id for task in run.tasks.values() if not task.kept}
        found = [one.path for kind in ("logs/", "workspacearchives/") async for one in objects.list(kind)]
        return [path for path in found if path.split("/")[1] in ids]

    one = in_one_process(open_path, "--sandbox", "off", "--config", str(settings), components=COMPONENTS)
    async with one as deployment, deployment.client() as client:
        first = await created(deployment, client, open_path, "web")
        second = await created(deployment, client, open_path, "web")
        assert await owners(first)
        before = datetime.now(UTC).isoformat()
        assert (await deployment.run("run", "restart", second.id, "--from-failed", "--follow")).code == 1

        async def listed() -> list[int]:
            return [run.counter for run in (await client.runs.page(groups=["/project/web"])).runs]

        assert await until(listed, [3, 2].__eq__) == [3, 2]
        await until(lambda: owners(first), lambda left: not left)
        gone = await deployment.run("run", "get", first.id)
        assert f"run {first.id} was deleted by retention (runs.keep 2) at " in gone.err
        assert (await client.runs.get(first.id, at=before)).phase == "finished"
        assert (await deployment.run("run", "get", first.id, "--at", before)).code == 0

        fourth = await created(deployment, client, open_path, "web")
        assert await until(listed, [4, 3].__eq__) == [4, 3]
        build, test = second.task("build"), second.task("test")
        assert build is not None
        assert test is not None
        await until(lambda: owners(second), lambda left: not any(test.id in path for path in left))
        assert any("/data/" in path for path in await owners(second)), "the restart keeps the build"
        third = (await client.runs.page(groups=["/project/web"])).runs[1]
        assert (await deployment.run("log", "get", third.id, "build")).out.startswith("built\n")
        assert [step.phase for step in (await client.runs.get(third.id)).tasks[build.id].steps] == ["success"] * 2

        short = await created(deployment, client, open_path, "short")
        await until(lambda: owners(short), lambda left: not left)
        removed = await client.runs.get(short.id)
        assert removed.logs_removed_at is not None
        assert removed.archives_removed_at is not None
        missing = await deployment.run("log", "get", short.id, "build")
        assert missing.code == 1
        assert "log doesn't exist: retention removed its logs at " in missing.err
        refused = await deployment.run("run", "restart", short.id, "--from-failed")
        assert "retention removed the archives of task 'build' at " in refused.err

        snapshot = open_path / "all.snapshot.tar"
        assert (await deployment.run("export", "-o", str(snapshot), "--with", "logs,archives")).code == 0
        assert (await deployment.run("snapshot", "verify", str(snapshot))).code == 0
        assert (await deployment.fsck()).code == 0
        assert await owners(fourth)
        checked = await deployment.beside("fsck", "--objects-dir", str(open_path / "objects"))
        assert re.search(r"^\d+ objects of runs, [\d,]+ bytes: no difference$", checked.out, re.MULTILINE), checked
        used = {kind.kind: kind for kind in (await client.storage()).kinds}
        assert used["runs"].objects == 3
        assert used["logs"].next_removal is not None
        assert (await deployment.run("storage", "status")).out.count("KiB") >= 1
        await objects.write("caches/group/key.tar", BytesSource(b"cached"))
        await until(client.storage, lambda status: any(kind.kind == "caches" for kind in status.kinds))
        await spoil(open_path / "objects", fourth, first)
        checked = await deployment.beside("fsck", "--objects-dir", str(open_path / "objects"))
        assert checked.code == 1
        not_so = ("no run refers to it", "a reference of a run that does not refer to it")
        for finding in ("missing, run", "missing, though the run refers to", *not_so):
            assert checked.out.count(finding) == 1, checked
        assert "\n1 object of runs that are not in this log" in checked.out, checked
        assert "\n1 reference of runs being created, or never created" in checked.out, checked
        assert f"\n1 object of these without a reference, such as {paths.step_log(UNKNOWN, 0)}:" in checked.out, checked
        with pytest.raises(ClientError, match="was deleted by retention"):
            await client.runs.restart(first.id)
