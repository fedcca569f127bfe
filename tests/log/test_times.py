"""A position by a time: everything that was stored earlier is before it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runstream.commits import LogPosition
from runstream.errors import BadRequestError
from runstream.log.jetstream import JetStreamLog
from runstream.log.tail import resolve_position
from tests.log.commits import created, run_address


async def test_the_position_of_a_time_has_what_was_stored_before(log: JetStreamLog) -> None:
    for _ in range(9):
        await log.append(created(run_address()))
    async with log.read(0, 0) as reader:
        stored = [message.stored_at for message in await reader.next_batch()]
    for number, moment in enumerate(stored):
        before = sum(one < moment for one in stored)
        assert before <= number
        assert await resolve_position(log, moment.isoformat()) == LogPosition(log.epoch, (before,))
    late, early = stored[-1] + timedelta(microseconds=1), stored[0] - timedelta(days=1)
    assert await resolve_position(log, late.isoformat()) == LogPosition(log.epoch, (9,))
    assert await resolve_position(log, early.isoformat()) == LogPosition(log.epoch, (0,))


async def test_a_time_needs_a_zone(log: JetStreamLog) -> None:
    with pytest.raises(BadRequestError, match="neither a time with its zone nor a position"):
        await resolve_position(log, "2026-11-29T18:40:00")


def test_a_position_may_end_with_the_line_of_its_file() -> None:
    assert LogPosition.parse("1:50,35,51\n") == LogPosition(1, (50, 35, 51))
    with pytest.raises(BadRequestError, match="is not a position of the log"):
        LogPosition.parse("1:50,\n35,51")
