"""A server is down: one sentence with a way out, the error chain on request, one structured record, no stack trace."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx2
import pytest

from runstream.client import Client, NewRun, Run
from tests.acceptance.deployment import TOKEN, Deployment, in_one_process, kill_server
from tests.acceptance.load import task

PLACE = re.compile(r"[\w/.-]+\.py:\d+")


@pytest.mark.seconds(120)
async def test_the_log_of_a_step_while_nats_is_down(open_path: Path) -> None:
    async with in_one_process(open_path, "--sandbox", "off") as deployment, deployment.client() as client:
        run = await _a_run(client)
        await kill_server(deployment.nats)
        words = ("log", "get", run.id, "one", "--step", "0")
        async with asyncio.TaskGroup() as group:  # each waits for half a minute before it gives up
            plain = group.create_task(deployment.run(*words))
            full = group.create_task(deployment.run("--detailed-errors", *words))
        done, detailed = plain.result(), full.result()
        answer = await _get(deployment, f"/logs?runid={run.id}&taskid={next(iter(run.tasks))}&step=0")
        records = deployment.gateway.records("request_failed")
        await deployment.nats.start()
    assert (done.code, done.out) == (1, "")
    sentence, hint = _told(done.err)
    assert sentence.startswith("error: ")
    assert "NATS" in sentence
    assert hint.startswith("hint: ")
    assert "doctor" in hint
    first, second, *chain = _told(detailed.err)
    assert (first, second) == (sentence, hint)
    assert len(chain) >= 2
    assert len([line for line in chain if PLACE.search(line)]) >= 2
    assert "Traceback" not in done.err + detailed.err + answer.text
    (error,) = answer.json()
    assert (answer.status_code, error["kind"]) == (503, "internal")
    assert answer.headers["Retry-After"]
    assert f"error: {error['message']}" == sentence
    assert "chain" not in error
    asked = [record for record in records if record["path"] == "/api/v1alpha/logs"]
    assert asked
    for record in asked:
        assert (record["level"], record["event"], record["status"]) == ("warning", error["message"], 503)
        assert all(PLACE.search(line) for line in record["chain"])
    assert "Traceback" not in deployment.gateway.stderr.read_text()


@pytest.mark.seconds(120)
async def test_reading_while_postgres_is_down(open_path: Path) -> None:
    async with in_one_process(open_path, "--sandbox", "off") as deployment, deployment.client() as client:
        await _a_run(client)
        await kill_server(deployment.postgres)
        async with asyncio.TaskGroup() as group:  # each waits before it gives up
            asked = group.create_task(_get(deployment, "/runs"))
            listed = group.create_task(deployment.run("run", "list"))
        answer, done = asked.result(), listed.result()
        await deployment.postgres.start()
        assert [run.name for run in (await client.runs.page()).runs] == ["short"]
    (error,) = answer.json()
    assert (answer.status_code, error["kind"]) == (503, "internal")
    assert answer.headers["Retry-After"]
    assert error["message"]
    assert error["hint"]
    assert done.code == 1
    assert _told(done.err)[0] == "error: " + re.sub(r"\[Errno \d+\] ", "", error["message"])
    assert "Traceback" not in done.err + answer.text + deployment.gateway.stderr.read_text()


def _told(err: str) -> list[str]:
    """Return the lines about the error, without those about the wait before it."""
    return [line for line in err.strip().splitlines() if not line.startswith("waiting: ")]


async def _a_run(client: Client) -> Run:
    """A run that has ended, all of it stored."""
    tasks = {"one": task("one", "echo hello")}
    run = await client.runs.create(NewRun("/project/web/branch/main", "short", tasks))
    async for commit in client.events.tail(run=run.id):
        if any(event.type == "RunArchived" for event in commit.events):
            return await client.runs.get(run.id, at_least=commit.position)
    raise AssertionError("the events ended")


async def _get(deployment: Deployment, path: str) -> httpx2.Response:
    url, headers = f"{deployment.gateway.url}/api/v1alpha{path}", {"Authorization": f"token {TOKEN}"}
    async with httpx2.AsyncClient(headers=headers, timeout=40) as http:
        return await http.get(url)
