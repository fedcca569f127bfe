"""The process that archives is killed by -9 at random moments; NATS loses everything at random moments."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from runstream.objects import PosixObjects
from tests.datamanager.place import Place, deployment, said
from tests.datamanager.rig import archived_of

ROOT = Path(__file__).parents[2]
KILLS = 25
"""Of each test."""


@asynccontextmanager
async def child(*words: str) -> AsyncIterator[Process]:
    command = [sys.executable, "-W", "error", "-m", "tests.datamanager.child", *words]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"started\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.seconds(400)
@pytest.mark.parametrize("seed", [7, 8])
async def test_killed_at_random_moments(
    seed: int, nats_url: str, database_url: str, database_schema: str, namespace: str, tmp_path: Path
) -> None:
    random = Random(seed)  # noqa: S311 - moments, not secrets
    words = (nats_url, database_url, database_schema, namespace, str(tmp_path))
    async with deployment(nats_url, database_url, database_schema, namespace, PosixObjects(tmp_path)) as place:
        await place.prepare()
        reached = 0
        for number in range(KILLS):
            async with child(*words) as process:
                for _ in range(random.randint(0, 6)):
                    await place.append(random.randint(1, 30), partition=random.randint(0, 1))
                process.kill()
                await process.wait()
            if number % 5 == 4:
                reached = await whole(place, reached)
            if number % 10 == 9:
                await place.lose_nats()
                assert (await place.prepare()).restored is not None
        await whole(place, reached)
        before = (await place.archive.status()).generation
        async with child(*words) as process:
            # One that has not taken the archive over yet would leave the rest to the next one.
            while (await place.archive.status()).generation == before:
                pass
            await place.append(5)
            process.terminate()
            assert await process.wait() == 0
        assert said(await archived_of(place.archive)) == without_ids(said(await place.logged()))


async def whole(place: Place, reached: int) -> int:
    """The archive has at least what it had, and it is how the log begins; gives how many commits it has."""
    status = await place.archive.status()
    assert status.commits >= reached
    archived, logged = said(await archived_of(place.archive)), without_ids(said(await place.logged()))
    assert archived == [log[: len(begin)] for begin, log in zip(archived, logged, strict=True)]
    return status.commits


def without_ids(messages: list[list[tuple[object, ...]]]) -> list[list[tuple[object, ...]]]:
    """The archive has no headers of NATS: the id is in the body."""
    return [[(*message[:3], [h for h in message[3] if h[0] != "Nats-Msg-Id"]) for message in p] for p in messages]  # type: ignore[attr-defined]
