"""How long a partition stands still for one fault: a link that is cut, an answer that is lost, a part that is frozen.

The figures are printed: `make chaos` asks for them. A partition stands still for at most 10 seconds, and every run
ends. The aim for a killed process is 5 seconds, which a loaded machine may miss.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from runstream.client import Client, NewRun
from runstream.codec import decode
from runstream.commits import StoredCommit
from runstream.events.run import RunFinished
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.subjects import group_root, partition_of
from tests.acceptance.deployment import TOKEN, Deployment, Process, Server, kill_server, servers
from tests.acceptance.load import task
from tests.chaos.kills import kills, say
from tests.links import Link, link

PARTITIONS = 4
EVERY_SECONDS = 0.25
"""Seconds between two runs created in each partition."""
LASTING_SECONDS = 15.0
"""Seconds that a fault lasts from which the rest of the deployment recovers by itself."""
SHORT_SECONDS = 4.0
"""Seconds that a fault lasts for which nothing can stand in."""
MOST_SECONDS = 10.0
"""Longest standstill of a partition, in seconds. A healthy deployment takes half of it on two busy cores."""
TASKS = {"one": task("one", "true")}


@dataclass
class Place:
    """A deployment whose processes have links of their own to each server."""

    deployment: Deployment
    nats: dict[str, Link] = field(default_factory=dict)
    postgres: dict[str, Link] = field(default_factory=dict)

    def process(self, name: str) -> Process:
        return self.deployment.processes[name]


@dataclass
class Progress:
    """When runs of each partition finished."""

    client: Client
    ended: list[list[float]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    some: asyncio.Event = field(default_factory=asyncio.Event)
    created: int = 0
    enough: bool = False

    async def create(self, partition: int) -> None:
        """Create runs until there are enough; a failed creation is retried later."""
        number = next(n for n in range(1000) if partition_of(group_root(f"/project/p{n}/x"), PARTITIONS) == partition)
        while not self.enough:
            group = f"/project/p{number}/branch/b{self.created}"
            self.created += 1
            key = f"recovery-{self.created}"
            await self.client.runs.create(NewRun(group, "one", TASKS), idempotency_key=key)
            await asyncio.sleep(EVERY_SECONDS)  # sleeps: a load of so many runs a second

    async def read(self, log: JetStreamLog, partition: int) -> None:
        """Note what finishes, until cancelled."""
        loop = asyncio.get_running_loop()
        async with log.read(partition, 0) as reader:
            while True:
                for message in await reader.next_batch():
                    if _finished(decode(message)):
                        self.ended[partition].append(loop.time())
                        self.some.set()

    def longest(self, since: float) -> float:
        """The longest time, up to now, in which no run of some partition finished."""
        now = asyncio.get_running_loop().time()
        gaps = [0.0]
        for times in self.ended:
            moments = [since, *(time for time in times if time > since), now]
            gaps += [later - earlier for earlier, later in pairwise(moments)]
        return max(gaps)

    async def goes_on(self, more: int = 8) -> None:
        """Wait until runs have finished in every partition from now on."""
        goal = [len(times) + more for times in self.ended]
        await self.until(lambda: all(len(times) >= wanted for times, wanted in zip(self.ended, goal, strict=True)))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of what has finished."""
        while not holds():
            self.some.clear()
            await self.some.wait()


def _finished(stored: StoredCommit) -> bool:
    return any(isinstance(event, RunFinished) for event in stored.commit.events)


Fault = Callable[[Place], Awaitable[float]]
"""Makes a fault and mends it; how many seconds of it are the fault's own, in which nothing can go on."""


def _cut(what: str, name: str, seconds: float, *, own: bool) -> Fault:
    async def fault(place: Place) -> float:
        cut: Link = getattr(place, what)[name]
        cut.cut()
        await asyncio.sleep(seconds)  # sleeps: the fault lasts
        cut.mend()
        return seconds if own else 0.0

    return fault


def _broken(what: str, name: str) -> Fault:
    async def fault(place: Place) -> float:
        broken: Link = getattr(place, what)[name]
        broken.break_off()
        broken.mend()
        return 0.0

    return fault


def _lost_answer(name: str) -> Fault:
    async def fault(place: Place) -> float:
        place.nats[name].answers_to_lose = 1
        return 0.0

    return fault


def _frozen(name: str) -> Fault:
    async def fault(place: Place) -> float:
        pid = place.process(name).pid
        psutil.Process(pid).send_signal(signal.SIGSTOP)
        await asyncio.sleep(LASTING_SECONDS)  # sleeps: the fault lasts
        psutil.Process(pid).send_signal(signal.SIGCONT)
        return 0.0

    return fault


def _killed(name: str) -> Fault:
    async def fault(place: Place) -> float:
        await place.process(name).kill()
        await asyncio.sleep(LASTING_SECONDS)  # sleeps: the fault lasts
        await place.process(name).start()
        return 0.0

    return fault


def _server(name: str, *, kill: bool) -> Fault:
    async def fault(place: Place) -> float:
        server: Server = getattr(place.deployment, name)
        begun = asyncio.get_running_loop().time()
        if kill:
            await kill_server(server)
            await server.start()
        else:
            assert server.process is not None
            main = psutil.Process(server.process.pid)
            family = [main, *main.children(recursive=True)]
            for one in family:
                one.suspend()
            await asyncio.sleep(SHORT_SECONDS)  # sleeps: the fault lasts
            for one in family:
                one.resume()
        return asyncio.get_running_loop().time() - begun

    return fault


FAULTS: dict[str, Fault] = {
    "a scheduler cut off from NATS": _cut("nats", "scheduler0", LASTING_SECONDS, own=False),
    "a scheduler cut off from Postgres": _cut("postgres", "scheduler0", LASTING_SECONDS, own=False),
    "a scheduler's connection to NATS reset": _broken("nats", "scheduler0"),
    "a scheduler's connections to Postgres reset": _broken("postgres", "scheduler0"),
    "a scheduler frozen": _frozen("scheduler0"),
    "a scheduler killed": _killed("scheduler0"),
    "a lost answer of NATS to a scheduler": _lost_answer("scheduler0"),
    "a lost answer of NATS to the gateway": _lost_answer("gateway"),
    "a lost answer of NATS to an executor": _lost_answer("executor"),
    "the gateway cut off from NATS": _cut("nats", "gateway", SHORT_SECONDS, own=True),
    "an executor cut off from NATS": _cut("nats", "executor", SHORT_SECONDS, own=True),
    "NATS frozen": _server("nats", kill=False),
    "NATS killed and started": _server("nats", kill=True),
    "Postgres frozen": _server("postgres", kill=False),
    "Postgres killed and started": _server("postgres", kill=True),
}


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    async with servers(folder) as deployment, AsyncExitStack() as stack:
        made = Place(deployment)
        for name, component in (
            ("gateway", "gateway"),
            ("scheduler0", "scheduler"),
            ("scheduler1", "scheduler"),
            ("executor", "executor"),
        ):
            options = ("--driver", "noop", "--active-tasks-limit", "0") if component == "executor" else ()
            process = deployment.process(name, component, *options)
            made.nats[name] = await stack.enter_async_context(link(deployment.nats.url))
            made.postgres[name] = await stack.enter_async_context(link(deployment.postgres.url))
            through = {deployment.nats.url: made.nats[name].url, deployment.postgres.url: made.postgres[name].url}
            process.words = [through.get(word, word) for word in process.words]
        await asyncio.gather(*(process.start() for process in deployment.processes.values()))
        yield made
        await asyncio.gather(*(process.stop() for process in deployment.processes.values()))


@pytest.mark.chaos
@pytest.mark.seconds(900)
async def test_partitions_go_on_after_every_single_fault(open_path: Path) -> None:
    if not kills(0):
        pytest.skip("it takes minutes: `make chaos` measures it")
    async with (
        place(open_path) as at,
        Client(at.process("gateway").url, token=TOKEN, wait_seconds=60) as client,
        nats_connection(at.deployment.nats.url) as nc,
        await open_log(nc, "runstream") as log,
        asyncio.TaskGroup() as group,
    ):
        progress, loop = Progress(client), asyncio.get_running_loop()
        reading = [group.create_task(progress.read(log, partition)) for partition in range(PARTITIONS)]
        creating = [group.create_task(progress.create(partition)) for partition in range(PARTITIONS)]
        await progress.goes_on()
        say(f"{'without a fault':48} {progress.longest(min(map(min, progress.ended))):5.1f} s")
        late = {}
        for name, fault in FAULTS.items():
            begun = loop.time()
            own = await fault(at)
            await progress.goes_on()
            still = max(progress.longest(begun) - own, 0.0)
            say(f"{name:48} {still:5.1f} s")
            if still > MOST_SECONDS:
                late[name] = still
        progress.enough = True
        await asyncio.wait(creating)
        await progress.until(lambda: sum(map(len, progress.ended)) >= progress.created)
        for one in reading:
            one.cancel()
        assert not late, f"partitions stood still for more than {MOST_SECONDS} s: {late}"
