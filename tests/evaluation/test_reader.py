"""Configurations are read off the event loop, a few at a time; a hostile one delays only other programs."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from runstream.errors import InternalError
from runstream.evaluation.program import EvaluationError, EvaluationLimits
from runstream.evaluation.reader import ConfigReader
from runstream.runconfig.parse import ParsedConfig
from runstream.runconfig.refs import RefContext

HERE = RefContext(ref_type="branch", branch="main")
ENDLESS = "def main(ctx):\n  for a in range(1 << 30):\n    for b in range(1 << 30):\n      pass\n  return {}"
TEXT = "runs: [{name: main}]"
PROGRAM = "function(ctx) {runs: [{name: ctx.branch}]}"


def names(parsed: ParsedConfig) -> list[str]:
    return [run.name for run in parsed.runs]


class Held:
    """A reading that blocks in its thread until the test releases it."""

    def __init__(self) -> None:
        self._begun, self._go_on = threading.Event(), threading.Event()

    def __call__(self, parsed: ParsedConfig) -> list[str]:
        self._begun.set()
        assert self._go_on.wait(30)
        return names(parsed)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, 30)

    def go_on(self) -> None:
        self._go_on.set()


async def test_a_text_does_not_wait_for_programs() -> None:
    reader, held = ConfigReader(concurrency=1), Held()
    program = asyncio.create_task(reader.read("config.jsonnet", PROGRAM, HERE, held))
    await held.begun()
    assert await reader.read("config.yml", TEXT, HERE, names) == ["main"]
    held.go_on()
    assert await program == ["main"]


async def test_programs_take_turns() -> None:
    reader = ConfigReader(EvaluationLimits(seconds=1), concurrency=2)
    read = [reader.read("config.jsonnet", PROGRAM, HERE, names) for _ in range(5)]
    hostile = [reader.read("config.star", ENDLESS, HERE, names) for _ in range(2)]
    *failed, one, two, three, four, five = await asyncio.gather(*hostile, *read, return_exceptions=True)
    assert [type(error) for error in failed] == [EvaluationError, EvaluationError]
    assert one == two == three == four == five == ["main"]


async def test_a_wait_that_takes_too_long_is_reported() -> None:
    reader, held = ConfigReader(concurrency=1, slot_timeout_seconds=0.01), Held()
    first = asyncio.create_task(reader.read("config.yml", TEXT, HERE, held))
    await held.begun()
    with pytest.raises(InternalError, match="too many configurations") as busy:
        await reader.read("config.yml", TEXT, HERE, names)
    assert busy.value.code == "configsBusy"
    held.go_on()
    assert await first == ["main"]


async def test_an_abandoned_reading_keeps_its_slot_until_its_thread_ends() -> None:
    reader, held = ConfigReader(concurrency=1, slot_timeout_seconds=0.01), Held()
    given_up = asyncio.create_task(reader.read("config.yml", TEXT, HERE, held))
    await held.begun()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    with pytest.raises(InternalError, match="too many configurations"):
        await reader.read("config.yml", TEXT, HERE, names)
    held.go_on()
    while True:
        with contextlib.suppress(InternalError):  # until the thread has ended; the test is bounded
            assert await reader.read("config.yml", TEXT, HERE, names) == ["main"]
            break
