"""Components start in order and stop in reverse order, and the first one that ends by itself is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from runstream.errors import InternalError, NotExistError
from runstream.lifecycle import Component
from runstream.service.serve import StopRequest, first_end, running


class Part(Component):
    def __init__(self, name: str, told: list[str], work: Callable[[Part], None] = lambda _: None) -> None:
        super().__init__()
        self.name = name
        self._told = told
        self._work = work

    async def run(self) -> None:
        self._work(self)
        self._told.append(f"{self.name} starts")
        self.started.set()
        await self.stopping.wait()
        self._told.append(f"{self.name} stops")


class Stubborn(Part):
    async def run(self) -> None:
        self.started.set()
        await asyncio.Event().wait()


def fail(_: Part) -> None:
    raise NotExistError("there is no log", hint="make one")


async def test_opposite_order() -> None:
    told: list[str] = []
    async with running([Part("a", told), Part("b", told)], StopRequest()):
        told.append("all serve")
    assert told == ["a starts", "b starts", "all serve", "b stops", "a stops"]


async def test_one_that_does_not_start_stops_those_before_it() -> None:
    told: list[str] = []
    with pytest.raises(NotExistError, match="there is no log"):
        async with running([Part("a", told), Part("b", told, fail), Part("c", told)], StopRequest()):
            pass
    assert told == ["a starts", "a stops"]


async def test_one_that_ends_by_itself_is_named() -> None:
    told: list[str] = []
    a, b = Part("a", told), Part("b", told)
    async with running([a, b], StopRequest()):
        b.stopping.set()
        error = await first_end([a, b])
    assert isinstance(error, InternalError)
    assert error.message == "the b has ended"


async def test_insisting_does_not_wait() -> None:
    request = StopRequest()
    request.insisted.set()
    stubborn = Stubborn("a", [])
    stubborn.stop_seconds = 3600
    async with running([stubborn], request):
        pass
