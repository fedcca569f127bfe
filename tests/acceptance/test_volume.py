"""Many runs on separate processes: all succeed, each task once, one run of a group at a time, the projection exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.deployment import deployed
from tests.acceptance.load import Load, all_succeeded, chain, nothing_is_missing
from tests.acceptance.story import reading

pytestmark = pytest.mark.seconds(240)


async def test_300_runs_of_three_tasks_in_20_groups(open_path: Path) -> None:
    async with deployed(open_path, "--driver", "noop", "--active-tasks-limit", "8") as deployment:
        load = Load(deployment, 300, 20)
        async with reading(deployment.nats.url) as story:
            await load.publish()
            assert load.failed == []
            assert len(load.accepted) == 300
            await story.all_over(set(load.accepted))
        all_succeeded(story, load.accepted)
        await nothing_is_missing(deployment, load, story)


async def test_runs_of_real_commands(open_path: Path) -> None:
    marks = open_path / "marks"
    marks.touch()
    command = f'echo "$AGOLA_RUN_COUNTER" >> {marks}'
    async with deployed(open_path, "--sandbox", "off", "--active-tasks-limit", "2") as deployment:
        load = Load(deployment, 24, 6, chain(command))
        async with reading(deployment.nats.url) as story:
            await load.publish()
            assert load.failed == []
            await story.all_over(set(load.accepted))
        all_succeeded(story, load.accepted)
        assert len(marks.read_text().splitlines()) == 24 * 3
        await nothing_is_missing(deployment, load, story)
