"""Skipped commits stay skipped after an export and an import, also with another number of partitions."""

from __future__ import annotations

from pathlib import Path

import pytest

from runstream.projections.parked import list_skip_decisions
from runstream.snapshots.verify import verify
from tests.servers import Servers
from tests.snapshots.files import written
from tests.snapshots.golden_log import golden_log
from tests.snapshots.make_golden import parked_in

from .rig import compared, rig


@pytest.mark.parametrize("partitions", [1, 2, 3])
async def test_a_decision_survives(partitions: int, servers: Servers, tmp_path: Path) -> None:
    first = tmp_path / "first"
    await written(first, golden := golden_log(), parked=parked_in(golden))
    async with rig(servers, partitions) as around:
        done = await around.run_import(first)
        assert (done.parked, done.parked_in_source) == (1, 1)
        assert await around.differences() == []
        second = await around.export(tmp_path / "second")
        report = verify(second)
        assert (report.problems, report.skipped, report.parked) == ([], 1, 1)
        if partitions == 2:
            assert compared(first, second).equal
        await around.run_import(second)
        assert await around.differences() == []
        await around.rebuild()
        assert await around.differences() == []
        async with around.log() as log:
            (decided,) = await list_skip_decisions(log)
        assert (decided.by, decided.reason, decided.skipped) == ("user:ada", "of another program", "1/0/8")
