"""A list read after a creation has the run, whichever comes first: its rows or the request."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from runstream.commits import Position
from runstream.errors import InternalError
from runstream.gateway.runs.recent import MAX_ROOTS, RecentRuns

EARLIER, LATER = Position(1, 2, 7), Position(1, 2, 9)


async def asked(recent: RecentRuns, root: str, at_least: Sequence[Position] = ()) -> list[Position]:
    async def read(positions: Sequence[Position]) -> list[Position]:
        return list(positions)

    return await recent.read(root, at_least, read)


async def test_reads_of_a_root_wait_for_the_last_creation_there() -> None:
    recent = RecentRuns()
    for position in (EARLIER, LATER, EARLIER):
        recent.note("/project/web/branch/main", position)
    assert await asked(recent, "/project/web") == [LATER]
    assert await asked(recent, "/project/web", [EARLIER]) == [EARLIER, LATER]
    assert await asked(recent, "/project/other") == []


async def test_a_read_does_without_a_creation_that_the_projection_does_not_reach() -> None:
    recent, reads = RecentRuns(), 0
    recent.note("/user/ann/branch/main", LATER)

    async def read(positions: Sequence[Position]) -> str:
        nonlocal reads
        reads += 1
        if positions:
            raise InternalError("no scheduler", code="projectionBehind")
        return "rows"

    assert [await recent.read("/user/ann", (), read) for _ in range(2)] == ["rows", "rows"]
    assert reads == 3


async def test_other_errors_of_a_read_are_raised() -> None:
    recent = RecentRuns()
    recent.note("/user/ann/branch/main", LATER)

    async def read(_: Sequence[Position]) -> str:
        raise InternalError("no database", code="databaseUnreachable")

    with pytest.raises(InternalError):
        await recent.read("/user/ann", (), read)


async def test_the_number_of_roots_is_bounded() -> None:
    recent = RecentRuns()
    for number in range(MAX_ROOTS + 10):
        recent.note(f"/user/{number}/branch/main", LATER)
    assert await asked(recent, "/user/0") == []
    assert await asked(recent, f"/user/{MAX_ROOTS + 9}") == [LATER]
