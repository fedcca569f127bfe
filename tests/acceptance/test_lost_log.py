"""NATS loses its whole store under a service: at the next start the log is back, and what is missing is named."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.service.running import a_run, runstream, serving

pytestmark = pytest.mark.seconds(240)


def lose_nats(data_dir: Path) -> None:
    shutil.rmtree(data_dir / "nats" / "store")


async def fsck(data_dir: Path) -> str:
    code, out, told = await runstream("--data-dir", str(data_dir), "fsck")
    assert code == 0, out + told
    return out


async def test_a_lost_store_is_restored_and_the_service_goes_on(open_path: Path) -> None:
    data_dir = open_path / "data"
    async with serving(data_dir) as service:
        runs = [await a_run(data_dir) for _ in range(3)]
        service.process.terminate()
        assert await service.ended() == 0
    lose_nats(data_dir)
    async with serving(data_dir) as service:
        assert "no difference" in await fsck(data_dir)
        runs.append(await a_run(data_dir))
        code, out, _ = await runstream("--data-dir", str(data_dir), "run", "list", "--output", "json")
        assert code == 0
        assert all(run in out for run in runs)
        assert "no difference" in await fsck(data_dir)
        service.process.terminate()
        assert await service.ended() == 0


async def test_without_data_status_the_start_is_refused(open_path: Path) -> None:
    data_dir = open_path / "data"
    async with serving(data_dir) as service:
        await a_run(data_dir)
        service.process.terminate()
        assert await service.ended() == 0
    lose_nats(data_dir)
    archive = data_dir / "objects" / "data" / "archive"
    for path in await asyncio.to_thread(lambda: [*archive.rglob("status-*.json")]):
        path.unlink()
    code, _, told = await runstream("--data-dir", str(data_dir), "serve")
    assert code == 1
    assert "there is no data status" in told
    assert "the database knows that there was one" in told
    assert "drop schema" in told
    assert "Traceback" not in told
