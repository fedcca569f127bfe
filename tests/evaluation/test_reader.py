"""Configurations are read beside the loop, a few at a time; a hostile one keeps nobody else waiting but programs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from runstream.errors import InternalError
from runstream.evaluation import EvaluationError, Limits
from runstream.evaluation.reader import ConfigReader
from runstream.runconfig import ParsedConfig, RefContext

HERE = RefContext(ref_type="branch", branch="main")
ENDLESS = "def main(ctx):\n  for a in range(1 << 30):\n    for b in range(1 << 30):\n      pass\n  return {}"
TEXT = "runs: [{name: main}]"
PROGRAM = "function(ctx) {runs: [{name: ctx.branch}]}"


def names(parsed: ParsedConfig) -> list[str]:
    return [run.name for run in parsed.runs]


async def test_a_text_does_not_wait_for_programs() -> None:
    reader = ConfigReader(Limits(seconds=2), at_once=1)
    async with asyncio.TaskGroup() as tasks:
        endless = tasks.create_task(reader.read("config.star", ENDLESS, HERE, names))
        await asyncio.sleep(0)
        assert await reader.read("config.yml", TEXT, HERE, names) == ["main"]
        assert not endless.done()
        endless.cancel()


async def test_programs_take_turns() -> None:
    reader = ConfigReader(Limits(seconds=1), at_once=2)
    read = [reader.read("config.jsonnet", PROGRAM, HERE, names) for _ in range(5)]
    hostile = [reader.read("config.star", ENDLESS, HERE, names) for _ in range(2)]
    *failed, one, two, three, four, five = await asyncio.gather(*hostile, *read, return_exceptions=True)
    assert [type(error) for error in failed] == [EvaluationError, EvaluationError]
    assert one == two == three == four == five == ["main"]


async def test_who_waits_too_long_is_told() -> None:
    reader = ConfigReader(at_once=1, waiting_seconds=0.01)
    go_on = threading.Event()
    first = asyncio.create_task(reader.read("config.yml", TEXT, HERE, lambda _: go_on.wait(30)))
    await asyncio.sleep(0)
    with pytest.raises(InternalError, match="too many configurations") as busy:
        await reader.read("config.yml", TEXT, HERE, names)
    assert busy.value.code == "configsBusy"
    go_on.set()
    assert await first


async def test_who_gives_up_keeps_its_turn_until_its_thread_ends() -> None:
    reader = ConfigReader(at_once=1)
    started, go_on = threading.Event(), threading.Event()

    def slow(_: ParsedConfig) -> None:
        started.set()
        go_on.wait(30)

    given_up = asyncio.create_task(reader.read("config.yml", TEXT, HERE, slow))
    assert await asyncio.to_thread(started.wait, 30)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    second = asyncio.create_task(reader.read("config.yml", TEXT, HERE, names))
    await asyncio.sleep(0)
    assert not second.done()
    go_on.set()
    assert await second == ["main"]
