"""Users cannot have an executor clone a repository of its machine, however a run names the path."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.folding import FoldedLog
from tests.gateway.owners import Owners
from tests.gateway.world import TOKEN, run_body, task

URL = "AGOLA_REPOSITORY_URL"
CONFIG = """
runs:
  - name: main
    tasks:
      - name: build
        runtime: {type: host}
        environment: {OTHER: {from_variable: url}}
        steps: [{clone: {}}]
"""


@pytest.fixture
async def owners(tmp_path: Path) -> AsyncIterator[Owners]:
    async with Owners.serving(tmp_path, reads=FoldedLog) as owners:
        yield owners


def of_config(content: str = CONFIG, **given: Any) -> tuple[str, dict[str, Any]]:
    return "/createruns", {"config": {"name": "config.yml", "content": content}, "branch": "main", **given}


def ways(path: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each way in which a new run can name a repository."""
    of_task = CONFIG.replace("OTHER: {from_variable: url}", f"{URL}: {path}")
    of_variable = CONFIG.replace("OTHER", URL)
    secret = {
        "variables": {},
        "variable_files": [{"name": "v.yml", "content": "url: {values: [{secret_name: s, secret_var: url}]}"}],
        "secret_files": [{"name": "s.yml", "content": json.dumps({"s": {"url": path}})}],
    }
    return {
        "repository": of_config(repository_url=path),
        "environment of the runs of a file": of_config(environment={URL: path}),
        "environment of a task in a file": of_config(of_task, repository_url="https://git.example/x.git"),
        "variable": of_config(of_variable, repository_url="https://git.example/x.git", variables={"url": path}),
        "secret": of_config(of_variable, repository_url="https://git.example/x.git", **secret),
        "static environment": ("/runs", run_body(static_environment={URL: path})),
        "environment": ("/runs", run_body(environment={URL: path})),
        "environment of a task": ("/runs", run_body(run_config_tasks={"t1": task(environment={URL: path})})),
        "our name": ("/runs", run_body(environment={"RUNSTREAM_REPOSITORY_URL": path})),
    }


async def test_a_user_names_only_paths_in_the_folders_that_the_admin_allows(owners: Owners, tmp_path: Path) -> None:
    ann, token = await owners.user("ann")
    group, elsewhere = f"/user/{ann.id}/branch/main", tmp_path / "elsewhere"
    forms = (
        str(elsewhere),
        elsewhere.as_uri(),
        f"{tmp_path}/hosts/../elsewhere",
        f"file://localhost{tmp_path}/hosts/a",
    )
    async with owners.http(token) as http, owners.http(TOKEN) as admin:
        for path in forms:
            for way, (route, body) in ways(path).items():
                refused = await http.post(route, json=body | {"group": group})
                assert refused.status_code == 400, (way, path, refused.text)
                assert refused.json()[0]["code"] in ("sourceNotAllowed", "invalidRepositoryURL"), (way, path)
        for way, (route, body) in ways(str(elsewhere)).items():
            assert (await admin.post(route, json=body | {"group": group})).status_code == 201, way
        for path in (f"{tmp_path}/hosts/web", (tmp_path / "hosts" / "web").as_uri(), "https://git.example/x.git"):
            for way, (route, body) in ways(path).items():
                allowed = await http.post(route, json=body | {"group": group})
                assert allowed.status_code == 201, (way, path, allowed.text)


async def test_a_restart_with_another_environment_names_only_allowed_paths(owners: Owners, tmp_path: Path) -> None:
    ann, token = await owners.user("ann")
    group = f"/user/{ann.id}/branch/main"
    async with owners.http(token) as http, owners.http(TOKEN) as admin:
        made = (await admin.post("/runs", json=run_body(group=group, environment={URL: "/by/the/admin"}))).json()["run"]
        await admin.put(f"/runs/{made['id']}/actions", json={"action_type": "cancel"})
        again = await http.post("/runs", json={"run_id": made["id"], "from_start": True})
        assert again.status_code == 201, again.text
        other = {"run_id": made["id"], "from_start": True, "environment": {URL: str(tmp_path / "elsewhere")}}
        assert (await http.post("/runs", json=other)).json()[0]["code"] == "sourceNotAllowed"
