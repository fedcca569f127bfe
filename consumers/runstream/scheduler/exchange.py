"""Scheduler processes tell each other who waits, so that room goes to whose turn it is in all of them.

    alone, or nobody waits anywhere --a task waits here, or another process says so--> telling
    telling --nobody waits anywhere--> told once that there is nothing more to say

While it tells, a process says everything anew after each change, and every second. So a notice that got lost is made
good, and what a process said that died is forgotten: with its place among the fellows, or when it has been silent for
`VALID_SECONDS`. Changes are gathered for the time that telling takes, several times over, so that a process that is
busy does not get busier by telling. A process that is alone does nothing of all this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

import msgspec
import structlog

from runstream.bounded import heard
from runstream.jetstream.messaging import Notices
from runstream.scheduler.others import Notice
from runstream.scheduler.turns import Turns

logger = structlog.get_logger(__name__)

REPEAT_SECONDS = 1.0
VALID_SECONDS = 3.0
GATHER_SECONDS = 0.002
"""The least time between two notices."""
GATHER_TIMES = 9
"""So many times as long as it took to hear, to decide and to tell: a tenth of the time at most goes into it."""
RULE = 1
"""The version of the rule; processes that order those who wait in another way do not count on each other."""


class Exchange:
    """Tells the other processes what waits here, and hears what waits there."""

    def __init__(self, turns: Turns, notices: Notices, subject: str, process: str) -> None:
        """`subject` is that of all schedulers of the service; `process` is this one's id."""
        self._turns = turns
        self._notices = notices
        self._subject = subject
        self._process = process
        self._fellows: frozenset[str] = frozenset()
        self._heard: dict[str, Notice | None] = {}
        self._valid_until: dict[str, float] = {}
        self._telling = False
        self._something = asyncio.Event()
        turns.on_change = self._changed

    def living(self, processes: Collection[str]) -> None:
        """These are the schedulers now, this one among them."""
        for process in self._fellows.difference(processes):
            self._heard[process] = None
        self._fellows = frozenset(processes) - {self._process}
        self._something.set()

    async def run(self) -> None:
        """Tell and hear until cancelled; says at the end that there is nothing more to say."""
        loop = asyncio.get_running_loop()
        async with self._notices.hearing(self._subject, self._hear):
            try:
                while True:
                    await self._until_something()
                    begun = loop.time()
                    said = self._turn(begun)
                    busy = loop.time() - begun
                    if said:
                        await self._notices.tell(self._subject, said)
                    await asyncio.sleep(GATHER_SECONDS + GATHER_TIMES * busy)
            finally:
                if self._telling:
                    await self._notices.tell(self._subject, encode(self._process, None))

    async def _until_something(self) -> None:
        repeat = self._telling or self._turns.capacity.others.known
        await heard(self._something, REPEAT_SECONDS if repeat else None)

    def _turn(self, now: float) -> bytes:
        """Take in what was heard, and give out room to our own; what is to be told then, if anything."""
        self._something.clear()
        said, self._heard = self._heard, {}
        self._valid_until.update(dict.fromkeys(said, now + VALID_SECONDS))
        silent = [process for process, until in self._valid_until.items() if until <= now]
        for process, notice in (said | dict.fromkeys(silent)).items():
            self._turns.hear(process, notice)
            if notice is None:
                del self._valid_until[process]
        self._turns.reconsider()
        told = self._telling
        self._telling = bool(self._fellows and (self._turns.waiting or self._turns.capacity.others.claims))
        if self._telling:
            return encode(self._process, self._turns.notice())
        return encode(self._process, None) if told else b""

    def _changed(self) -> None:
        if self._fellows and (self._telling or self._turns.waiting):
            self._something.set()

    def _hear(self, data: bytes) -> None:
        try:
            process, notice = decode(data)
        except msgspec.DecodeError as error:
            logger.debug("A notice cannot be read", action="notice_unreadable", error=str(error))
            return
        if process != self._process:
            self._heard[process] = notice
            self._something.set()


@dataclass(frozen=True, slots=True)
class _Said:
    rule: int
    process: str
    notice: Notice | None


def encode(process: str, notice: Notice | None) -> bytes:
    """As it is told; without a notice, that there is nothing more to say."""
    return msgspec.json.encode(_Said(RULE, process, notice))


def decode(data: bytes) -> tuple[str, Notice | None]:
    """Who says it, and what; a process of another rule says nothing. Raises msgspec.DecodeError."""
    said = msgspec.json.decode(data, type=_Said)
    return said.process, said.notice if said.rule == RULE else None
