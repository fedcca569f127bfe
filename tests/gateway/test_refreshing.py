"""A restart that resolves variables and secrets again: other values, the same work, for the same sources."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from runstream.events.run import RunCancelled, RunRestarted
from runstream.events.run_config import RunConfig, RunConfigStored, Sealed
from runstream.log.runs import find_run, locate_run
from runstream.sealing import OpenedSecrets
from runstream.subjects import Address, partition_of
from tests.gateway.world import KEYRING, World

P = partition_of("/project/web", 4)
CONFIG = """
runs:
  - name: other
    tasks: []
  - name: pipeline
    when: {branch: main}
    tasks:
      - name: build
        runtime: {type: host}
        environment: {TOKEN: {from_variable: token}, PLAIN: {from_variable: plain}}
        steps: [{run: make}]
"""
VARIABLES = "token:\n  values: [{secret_name: registry, secret_var: password}]\n"


def _inputs(password: str, **changes: Any) -> dict[str, Any]:
    return {
        "config": {"name": "config.yml", "content": CONFIG},
        "variables": {"plain": password.upper()},
        "variable_files": [{"name": "variables.yml", "content": VARIABLES}],
        "secret_files": [{"name": "secrets.yml", "content": f"registry: {{password: {password}}}"}],
        **changes,
    }


async def _cancelled(world: World, http: httpx2.AsyncClient) -> str:
    body = _inputs("horse", group="/project/web/x", branch="main", commit_sha="1f2e", environment={"STAGE": "one"})
    answer = await http.post("/createruns", json=body)
    run = answer.json()["runs"][-1]["run"]["id"]
    await world.append(Address(P, "run", run), RunCancelled(""))
    return str(run)


async def test_values_are_resolved_again_and_all_else_is_as_it_was() -> None:
    world = World.make()
    async with world.http() as http:
        earlier = await _cancelled(world, http)
        answer = await http.post("/runs", json={"run_id": earlier, "from_start": True, "fresh": _inputs("staple")})
    assert answer.status_code == 201, answer.text
    assert answer.json()["run"]["restart"]["fresh"] is True
    found = [
        await find_run(world.log, await locate_run(world.log, run)) for run in (earlier, answer.json()["run"]["id"])
    ]
    before, after = (one.config for one in found)
    assert (after.static_environment, after.environment) == (before.static_environment, {"STAGE": "one"})
    values = {**after.tasks["build"].environment}
    assert values["PLAIN"] == "STAPLE"
    assert isinstance(values["TOKEN"], Sealed)
    assert _token(after) == "staple"
    assert "staple" not in answer.text
    restarted = next(
        event
        for stored in await world.log.history(found[1].address)
        for event in stored.commit.events
        if isinstance(event, RunRestarted)
    )
    assert restarted.fresh


def _token(config: RunConfig) -> str:
    """The secret as the executor of the run's task opens it."""
    task = config.tasks["build"]
    return OpenedSecrets(config, task, KEYRING).all(task.environment, "task.environment")["TOKEN"]


async def test_without_it_they_are_as_they_were() -> None:
    world = World.make()
    async with world.http() as http:
        earlier = await _cancelled(world, http)
        answer = await http.post("/runs", json={"run_id": earlier, "from_start": True})
    found = await find_run(world.log, await locate_run(world.log, answer.json()["run"]["id"]))
    assert _token(found.config) == "horse"
    configs = 0
    for stored in await world.log.history(Address(P, "runconfig", found.run.run_config)):
        configs += sum(isinstance(event, RunConfigStored) for event in stored.commit.events)
    assert configs == 1


async def test_secrets_are_never_used_in_another_environment_than_the_one_they_were_given_for() -> None:
    world = World.make()
    other = {"from_start": True, "environment": {"BASH_ENV": "$(reveal)"}}
    async with world.http() as http:
        earlier = await _cancelled(world, http)
        answer = await http.post("/runs", json={**other, "run_id": earlier})
        (error,) = answer.json()
        assert (answer.status_code, error["code"]) == (400, "environmentBound")
        same = await http.post("/runs", json={**other, "run_id": earlier, "environment": {"STAGE": "one"}})
        assert same.status_code == 201
        fresh = await http.post("/runs", json={**other, "run_id": earlier, "fresh": _inputs("staple")})
        assert fresh.json()["run_config"]["environment"] == other["environment"]
        with_credentials = _inputs(
            "horse",
            group="/project/web/y",
            branch="main",
            commit_sha="1f2e",
            repository_url="http://user:s3cretpw@host/x.git",
        )
        answer = await http.post("/createruns", json=with_credentials)
        run = answer.json()["runs"][-1]["run"]["id"]
        await world.append(Address(P, "run", run), RunCancelled(""))
        url = {"AGOLA_REPOSITORY_URL": "http://elsewhere/x.git"}
        fresh = await http.post(
            "/runs", json={"run_id": run, "from_start": True, "environment": url, "fresh": _inputs("staple")}
        )
        assert fresh.json()[0]["code"] == "environmentBound"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONFIG.replace("make", "rm"), "the file has other tasks than the run: build"),
        (CONFIG + "      - {name: more, runtime: {type: host}}\n", "the file has other tasks than the run: more"),
        (CONFIG.replace("pipeline", "renamed"), "the file makes no run 'pipeline' for refs/heads/main"),
        (CONFIG.replace("branch: main", "branch: dev"), "the file makes no run 'pipeline' for refs/heads/main"),
        ("runs: 7", "config.yml is not valid"),
    ],
)
async def test_another_file_is_no_restart(content: str, message: str) -> None:
    world = World.make()
    async with world.http() as http:
        earlier = await _cancelled(world, http)
        fresh = _inputs("staple", config={"name": "config.yml", "content": content})
        answer = await http.post("/runs", json={"run_id": earlier, "from_start": True, "fresh": fresh})
    (error,) = answer.json()
    assert answer.status_code == 400
    assert error["code"] in ("configDiffers", "invalidConfig")
    assert message in error["message"]


async def test_values_that_no_process_can_take_are_refused_in_a_restart_too() -> None:
    world = World.make()
    async with world.http() as http:
        again = {"run_id": await _cancelled(world, http), "from_start": True}
        for name, given in (
            ("TOKEN", {"fresh": _inputs("x" * 140_000, variables={"plain": "x"})}),
            ("STAGE", {"environment": {"STAGE": "x" * 140_000}, "fresh": _inputs("staple")}),
        ):
            answer = await http.post("/runs", json={**again, **given})
            (error,) = answer.json()
            assert (answer.status_code, error["code"]) == (400, "environmentTooLarge")
            assert error["message"] == f"{name} is 140,000 bytes, a process can take 131,072"


async def test_it_needs_a_run_and_its_key_knows_its_secrets() -> None:
    world = World.make()
    async with world.http() as http:
        (error,) = (await http.post("/runs", json={"fresh": _inputs("staple")})).json()
        assert (error["code"], error["message"]) == ("invalidRestart", "fresh without run_id")
        body = {"run_id": await _cancelled(world, http), "from_start": True}
        statuses = [
            (
                await http.post("/runs", json={**body, "fresh": _inputs(word)}, headers={"Idempotency-Key": "k"})
            ).status_code
            for word in ("staple", "staple", "other")
        ]
    assert statuses == [201, 200, 409]
