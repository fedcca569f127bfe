"""NATS or Postgres is killed and restarted in the middle of the load: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.deployment import deployed, kill_server
from tests.acceptance.load import Load, all_succeeded, nothing_is_missing
from tests.acceptance.story import reading

pytestmark = pytest.mark.seconds(240)


@pytest.mark.parametrize("what", ["nats", "postgres"])
async def test_a_server_is_killed_and_started_again(open_path: Path, what: str) -> None:
    async with deployed(open_path, "--driver", "noop", "--active-tasks-limit", "8") as deployment:
        server = deployment.nats if what == "nats" else deployment.postgres
        load = Load(deployment, 160, 20)
        async with reading(deployment.nats.url) as story, asyncio.TaskGroup() as group:
            publishing = group.create_task(load.publish())
            await story.until(lambda: len(story.ended) >= 60)
            url = server.url
            await kill_server(server)
            await server.start()
            assert server.url == url
            await publishing
            await story.all_over(set(load.accepted))
        print(f"{len(load.accepted)} accepted, {len(load.failed)} not: {load.failed[:3]}")  # noqa: T201
        assert len(load.accepted) + len(load.failed) == 160
        all_succeeded(story, load.accepted)
        await nothing_is_missing(deployment, load, story)
