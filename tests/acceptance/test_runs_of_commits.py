"""A project's run with a masked secret, and a direct run of a dirty working tree, in a real service."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from runstream.client import (
    Client,
    ClientError,
    CommitChoice,
    NewDirectRun,
    NewProject,
    NewRepository,
    NewVariableValue,
)
from runstream.client.owned_runs import OwnedRuns
from runstream.git.save import push_saved, save_working_tree
from tests.acceptance.deployment import Deployment, servers
from tests.git.repositories import new_repository
from tests.leftovers import contents, messages, rows

SECRET = "sw0rdfish-4711"
CONFIG = """
runs:
  - name: main
    tasks:
      - name: build
        runtime: {type: host}
        environment: {PASSWORD: {from_variable: password}, WORD: {from_variable: word}}
        steps: [{clone: {}}, {run: 'echo "<$PASSWORD> <$WORD> $(cat file)"; env | grep rsr_ || true; cat .git/config'}]
"""


async def _ended(deployment: Deployment, runs: OwnedRuns, owner: str, root: str) -> None:
    """Wait until the first run of a project or user has succeeded."""
    await runs.get(owner, 1)  # these routes know what was created a moment ago; the lists follow
    done = await deployment.run("run", "follow", f"{root}/1")
    assert done.code == 0, done


async def _log(runs: OwnedRuns, owner: str, number: int) -> str:
    (task,) = (await runs.get(owner, number)).tasks.values()
    return b"".join([chunk async for chunk in runs.log(owner, number, task.id, 1)]).decode()


async def test_runs_of_a_project_and_of_a_dirty_working_tree(tmp_path: Path) -> None:
    host = new_repository(tmp_path / "hosts" / "web", {".runstream/config.yml": CONFIG, "file": "committed"})
    settings = {"RUNSTREAM_OBJECTS_DIR": str(tmp_path / "objects"), "RUNSTREAM_GIT_FOLDERS": str(tmp_path / "hosts")}
    async with servers(tmp_path, settings) as deployment:
        await deployment.process("gateway", "gateway,scheduler,executor").start()
        async with deployment.client() as admin:
            users = {name: (await admin.users.create(name)).id for name in ("ann", "eve")}
            tokens = {name: await admin.users.create_token(name, "test") for name in users}
        url = deployment.gateway.url
        async with Client(url, token=tokens["ann"]) as ann, Client(url, token=tokens["eve"]) as eve:
            repository = NewRepository(url=str(host))
            project = await ann.projects.create(NewProject(name="web", visibility="private", repository=repository))
            await ann.secrets.create(project.id, "deploy", {"password": SECRET})
            await ann.variables.create(project.id, "password", [NewVariableValue("deploy", "password")])
            await ann.projects.create_runs(project.path, CommitChoice(branch="main"))
            await _ended(deployment, ann.project_runs, project.path, f"/project/{project.id}")
            log = await _log(ann.project_runs, project.path, 1)
            assert "<***> <> committed" in log
            with pytest.raises(ClientError, match="you may not"):
                await eve.project_runs.get(project.path, 1)

            (host / "file").write_text("dirty")
            saved = await asyncio.to_thread(save_working_tree, host)
            path = f"{users['ann']}/{saved.clone_id}"
            at = f"{url}/repos/{path}.git"
            await asyncio.to_thread(push_saved, saved, at, "refs/heads/main", username="ann", password=tokens["ann"])
            new = NewDirectRun(
                repo_uuid=saved.clone_id,
                repo_path=path,
                branch="main",
                commit_sha=saved.commit,
                message=saved.message,
                variables={"word": "hello"},
            )
            await ann.users.create_direct_runs(new)
            await _ended(deployment, ann.user_runs, "ann", f"/user/{users['ann']}")
            log = await _log(ann.user_runs, "ann", 1)
            assert "<> <hello> dirty" in log
            assert "rsr_" not in log
            restarted = await deployment.run("run", "restart", f"/user/{users['ann']}/1", "--follow")
            assert restarted.code == 0, restarted
            assert "dirty" in await _log(ann.user_runs, "ann", 2)
            (task,) = (await ann.user_runs.get("ann", 2)).tasks.values()
            await ann.user_runs.delete_log("ann", 2, task.id, 1)
            for again in (_log(ann.user_runs, "ann", 2), ann.user_runs.delete_log("ann", 2, task.id, 1)):
                with pytest.raises(ClientError, match="log doesn't exist"):
                    await again
            assert "dirty" in await _log(ann.user_runs, "ann", 1)
        left = [await messages(deployment.nats.url), *contents(tmp_path / "objects").values()]
        (tmp_path / "rows").mkdir()
        left += [file.read_bytes() for file in await rows(deployment.postgres.url, tmp_path / "rows")]
        for needle in (SECRET, *tokens.values(), "rsr_[0-9a-f]{8}"):  # the last one is a run's token
            assert not any(re.search(needle.encode(), content) for content in left), needle
        assert await deployment.gateway.stop() == 0
