"""What the API refuses: texts that fit into no index, endless numbers, keys given twice, an export too many."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from runstream.errors import ConflictError
from runstream.limits import MAX_GROUP_BYTES, MAX_TASKS
from runstream.snapshots.export import AT_ONCE, LogExports
from tests.gateway.world import World, run_body, task

DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"group": "/project/web/branch/" + "x" * MAX_GROUP_BYTES}, "invalidRunGroup"),
        ({"run_config_tasks": {f"t{n}": task(f"t{n}") for n in range(MAX_TASKS + 1)}}, "invalidRunConfigTasks"),
    ],
)
async def test_what_no_configuration_may_have_no_request_has(changes: dict[str, Any], code: str) -> None:
    async with World.make().http() as http:
        answer = await http.post("/runs", json=run_body(**changes))
        assert (answer.status_code, answer.json()[0]["code"]) == (400, code)


async def test_a_branch_that_fits_into_no_group_is_refused() -> None:
    async with World.make().http() as http:
        body = {"config": {"name": "config.yml", "content": "runs: [{name: r, tasks: []}]"}}
        assert (await http.post("/createruns", json=body)).status_code == 201
        for field in ("branch", "tag", "ref"):
            name = ("refs/x/" if field == "ref" else "") + "b" * 3000
            answer = await http.post("/createruns", json={**body, field: name})
            assert (answer.status_code, answer.json()[0]["code"]) == (400, "invalidRef"), field


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/runs", '{"name": "a", "group": "/user/admin", "run_config_tasks": {}, "name": "b"}'),
        ("POST", "/runs", '{"group": "/user/admin", "run_config_tasks": {}, "annotations": {"a": "1", "a": "2"}}'),
        ("POST", "/createruns", '{"config": {"name": "config.yml", "content": "runs: []", "content": ""}}'),
        ("PUT", "/runs/RUN/actions", '{"action_type": "stop", "action_type": "cancel"}'),
    ],
)
async def test_a_key_given_twice_is_refused(method: str, path: str, content: str) -> None:
    async with World.make().http() as http:
        run = (await http.post("/runs", json=run_body())).json()["run"]["id"]
        answer = await http.request(method, path.replace("RUN", run), content=content)
        assert (answer.status_code, answer.json()[0]["code"]) == (400, "duplicateKey"), answer.text


@pytest.mark.parametrize(
    "path",
    [
        f"/events?from={DIGITS}:{DIGITS}",
        f"/events?from=1:{DIGITS}",
        f"/runs/events?afterSequence=1/0/{DIGITS}",
        f"/runs/RUN?at={DIGITS}:1",
        f"/runs?at_least=1/0/{DIGITS}",
    ],
)
async def test_a_number_without_end_is_a_bad_request(path: str) -> None:
    async with World.make().http() as http:
        run = (await http.post("/runs", json=run_body())).json()["run"]["id"]
        answer = await http.get(path.replace("RUN", run))
        assert (answer.status_code, answer.json()[0]["code"]) == (400, "invalidParameter")


async def test_a_wrong_method_gets_the_methods_of_the_route() -> None:
    async with World.make().http() as http:
        answer = await http.delete("/runs")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


async def test_an_export_too_many_is_refused_before_its_answer_begins() -> None:
    world = World.make()

    async def log() -> Any:
        return [world.log]

    exports = LogExports(log, None, lambda: datetime.now(UTC))  # type: ignore[arg-type]
    opened = [await exports.open("", "") for _ in range(AT_ONCE)]
    with pytest.raises(ConflictError):
        await exports.open("", "")
    opened.pop()
    await exports.open("", "")
