"""An import over a deployment that has runs: each run of the new log has its references, and keeps its data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runstream.client import Run
from runstream.objects import PosixObjects
from runstream.objects.caches import StoredCaches
from tests.acceptance.deployment import Deployment, Done, in_one_process
from tests.acceptance.test_imports import maintenance

from .test_service import COMPONENTS, created, until

CLEAN = re.compile(r"^\d+ objects? of runs, [\d,]+ bytes?: no difference$", re.MULTILINE)


class Service:
    """A deployment, and its objects."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment = deployment
        self.folder = folder
        self.objects = PosixObjects(folder / "objects")

    async def done(self, *words: str) -> Done:
        """Run a command that succeeds."""
        done = await self.deployment.run(*words)
        assert done.code == 0, done
        return done

    async def delete(self, run: Run, *, left: set[str]) -> None:
        """Delete a run, and wait until of the tasks that it ran only the data of these is left."""
        await self.done("run", "delete", run.id, "--yes")
        names = {task.id: task.name for task in run.tasks.values() if not task.kept}

        async def named() -> set[str]:
            found = [one.path for kind in ("logs/", "workspacearchives/") async for one in self.objects.list(kind)]
            folders = {path.split("/")[1] for path in found if "/data/" in path or path.endswith(run.id)}
            return {names[each] for each in folders & names.keys()}

        assert await until(named, left.__eq__) == left

    async def replace(self, snapshot: Path) -> None:
        async with maintenance(self.deployment):
            await self.done("import", str(snapshot))

    async def checked(self) -> str:
        checked = await self.deployment.beside("fsck")
        assert checked.code == 0, checked
        assert CLEAN.search(checked.out), checked
        return checked.out


@pytest.mark.seconds(150)
async def test_runs_of_the_new_log_keep_their_data_and_the_rest_goes(open_path: Path) -> None:
    one = in_one_process(open_path, "--sandbox", "off", components=COMPONENTS)
    async with one as deployment, deployment.client() as client:
        service = Service(deployment, open_path)
        first = await created(deployment, client, open_path, "web")
        assert (await deployment.run("run", "restart", first.id, "--from-failed", "--follow")).code == 1
        second = await client.runs.get((await client.runs.page(groups=["/project/web"], limit=1)).runs[0].id)
        (cached := open_path / "cached").write_bytes(b"cached")
        assert await StoredCaches(service.objects).create("web", "key", cached)
        without, whole = open_path / "without.snapshot.tar", open_path / "whole.snapshot.tar"
        await service.done("export", "-o", str(without))
        await service.done("export", "-o", str(whole), "--with", "logs,archives")
        later = await created(deployment, client, open_path, "web")
        await service.delete(first, left={"build"})

        await service.replace(without)
        assert [run.counter for run in (await client.runs.page()).runs] == [2, 1]
        checked = await until(service.checked, lambda out: "not in this storage" in out)
        assert "of runs that are not in this log" in checked, "the later run's"
        await service.delete(second, left=set())
        build = first.task("build")
        assert build is not None
        assert (await service.done("log", "get", first.id, "build")).out.startswith("built\n")
        await service.checked()

        await service.replace(whole)
        assert (await service.done("log", "get", second.id, "test")).out.endswith("wheel\n")
        assert "not in this storage" not in await service.checked()
        await service.delete(first, left={"build"})
        await service.checked()
        await service.delete(second, left=set())
        await service.checked()
        left = {one.path.split("/")[1] async for one in service.objects.list("logs/")}
        assert left == {task.id for task in later.tasks.values()}
        assert [cache.key async for cache in StoredCaches(service.objects).list()] == ["key"]
