"""SIGKILLs at random moments: their number, their victims, and their times.

    chaos = Chaos(seed=11, ordinarily=4)
    command = Victim(chaos, ("rebuild", "--nats-url", …))
    await command.measure()
    for _ in chaos:
        await command.killed()

Some of the moments are of the clock, most are just before or after a request (see `dying`); of these every kind of
request has its turn as often as those that there are hundreds of. The seed is printed with the test. `make chaos` asks
for 50 kills of each kind (RUNSTREAM_TEST_KILLS); RUNSTREAM_TEST_SEED gives other moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.chaos.dying import Death
from tests.forkserver import DEVNULL, PIPE, Forked, forked

LATER = (-1.0, -1.0, 0.0, 0.0005, 0.002, 0.01, 0.05)
"""How long after a request it may be, in seconds; -1 is right before it."""
ROOT = Path(__file__).parents[2]


def kills(ordinarily: int) -> int:
    """Return the number of kills of each kind."""
    return int(os.environ.get("RUNSTREAM_TEST_KILLS", ordinarily))


def say(text: str) -> None:
    """Shown by `make chaos`, and with a test that fails."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Chaos:
    """The kills of one test, numbered from 0."""

    def __init__(self, seed: int, ordinarily: int) -> None:
        self.seed = int(os.environ.get("RUNSTREAM_TEST_SEED", seed))
        self.kills = kills(ordinarily)
        self.random = random.Random(self.seed)  # noqa: S311  # moments, not secrets
        say(f"{self.kills} kills, seed {self.seed}")

    def __iter__(self) -> Iterator[int]:
        yield from range(self.kills)


@dataclass
class Victim:
    """A command that changes something and is killed before it ends."""

    chaos: Chaos
    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    module: str = "tests.chaos.dying"
    """The module to run; its arguments are a `Death`, then the command's words."""
    shared_out: bool = False
    among: tuple[str, ...] = ("",)
    """Prefixes of the request kinds at which a kill may fall."""
    seconds: float = 0.0
    """How long the command takes undisturbed, in seconds."""
    requests: Counter[str] = field(default_factory=Counter)
    """Number of requests of each kind in an undisturbed run."""
    ended: int = 0
    """How often the command ended before the kill came."""

    async def measure(self) -> None:
        """Run the command once undisturbed and record how long it takes. Raises AssertionError when it fails."""
        began = asyncio.get_running_loop().time()
        with tempfile.NamedTemporaryFile("r") as told:
            async with self._running(Death(told.name, shared_out=self.shared_out)) as process:
                _, err = await process.communicate()
                assert process.returncode == 0, f"it ended with {process.returncode}: {err.decode()}"
            self.requests = Counter(line.strip() for line in told)
        self.seconds = asyncio.get_running_loop().time() - began

    async def killed(self, before: str = "") -> str:
        """Kill it at a random moment, or before the first request of this kind; return the moment."""
        chance = self.chaos.random
        kinds = sorted(kind for kind in self.requests if kind.startswith(self.among))
        kind = chance.choice(kinds) if kinds and chance.random() < 0.7 else ""
        number = chance.randint(1, self.requests[kind]) if kind else 1
        later = chance.choice(LATER)
        seconds = chance.uniform(0.15, 1.0) * self.seconds
        if before:
            kind, number, later = before, 1, -1.0
        with tempfile.NamedTemporaryFile("r") as told:
            await self._killed(Death(told.name, kind, number, later, self.shared_out), None if kind else seconds)
            last = ["nothing", *told][-1].strip()
        if not kind:
            return f"{seconds:.2f} s, after {last!r}" if self.requests else f"{seconds:.2f} s"
        return f"before {kind!r}" if later < 0 else f"{later} s after {kind!r}"

    async def _killed(self, death: Death, seconds: float | None) -> None:
        async with self._running(death) as process:
            said = asyncio.ensure_future(process.communicate())
            await asyncio.wait({said}, timeout=seconds)
            if process.returncode is None:
                process.kill()
            _, err = await said
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, f"it ended with {process.returncode}: {err.decode()}"
            self.ended += 1

    @contextlib.asynccontextmanager
    async def _running(self, death: Death) -> AsyncIterator[Forked]:
        words = (msgspec.json.encode(death).decode(), *self.words)
        process = await forked(self.module, words, self.environment, stdout=DEVNULL, stderr=PIPE)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
