"""A deployment as people run it: one NATS, one Postgres, and `runstream serve` processes beside each other.

Nothing is shared with another test: servers, data directories and objects are in the test's own folder. All of it
can be killed and started again in place. At the end every process is told to stop, and has to do so in order; what
the processes said is printed when the test fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import orjson
import psutil

from runstream.client import Client
from runstream.embedded import NatsServer, PostgresServer
from runstream.embedded.process import ServerProcess
from tests.forkserver import PIPE, SERVICE, Forked, forked
from tests.prepared import prepare

RUNSTREAM = Path(sys.executable).with_name("runstream")
TOKEN = "open-sesame"
START_SECONDS = 120.0
STOP_SECONDS = 15.0
LEASE_SECONDS = 4
_SHOWN_LINES = 40


class Server(Protocol):
    """An embedded server."""

    process: ServerProcess | None

    async def start(self) -> None: ...


@dataclass
class Process:
    """One `runstream serve`."""

    name: str
    words: Sequence[str]
    folder: Path
    environment: dict[str, str]
    url: str = ""
    _process: Forked | None = None

    @property
    def stderr(self) -> Path:
        return self.folder / f"{self.name}.stderr"

    @property
    def data_dir(self) -> Path:
        return self.folder / self.name

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it reports that it serves."""
        words = ("--data-dir", str(self.data_dir), "serve", *self.words)
        with self.stderr.open("ab") as stderr:
            self._process = await forked(SERVICE, words, self.environment, stdout=PIPE, stderr=stderr)
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = (await self._process.stdout.readline()).decode()
        assert " at http" in line, f"{self.name} did not start: {line!r}"
        self.url = line.rpartition(" at ")[2].strip()

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None

    async def ended(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> int:
        """Ask it to stop; its exit code. One that does not within the time is killed, and the test fails."""
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            await self.kill()
            return -signal.SIGKILL

    def records(self, action: str = "") -> list[dict[str, Any]]:
        """Return its log records with this action."""
        lines = self.stderr.read_bytes().splitlines() if self.stderr.exists() else []
        records = [orjson.loads(line) for line in lines if line.startswith(b"{")]
        return [record for record in records if not action or record["action"] == action]

    def owned(self) -> set[int]:
        """Return the partitions that a scheduler reports as its own."""
        owned: set[int] = set()
        for record in self.records():
            if record["action"] == "partition_acquired":
                owned.add(record["partition"])
            elif record["action"] in ("partition_released", "partition_lost"):
                owned.discard(record["partition"])
        return owned


@dataclass
class Deployment:
    """The servers and processes of one test."""

    folder: Path
    nats: NatsServer
    postgres: PostgresServer
    objects: Mapping[str, str]
    """The settings that say where the objects are, as environment."""
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def gateway(self) -> Process:
        return self.processes["gateway"]

    @property
    def servers(self) -> tuple[str, ...]:
        """The options that name the servers."""
        return ("--nats-url", self.nats.url, "--database-url", self.postgres.url)

    def client(self) -> Client:
        """The public client of its gateway."""
        return Client(self.gateway.url, token=TOKEN)

    def process(self, name: str, components: str, *options: str) -> Process:
        """Add a process without starting it."""
        words = ["--components", components, *self.servers, *options]
        process = Process(name, words, self.folder, environment() | dict(self.objects))
        self.processes[name] = process
        return process

    async def run(self, *words: str) -> Done:
        """Run `runstream` as a user of this deployment's gateway."""
        reached = ("--url", self.gateway.url, "--token", TOKEN)
        return await command(*reached, *words)

    async def beside(self, *words: str) -> Done:
        """Run `runstream` as an operator who reaches the servers directly."""
        apart = ("--data-dir", str(self.folder / "nowhere"))
        return await command(*apart, *words, *self.servers, seconds=90, objects=self.objects)

    async def fsck(self) -> Done:
        """Compare the log with the projection, and with the archive where there is one."""
        return await self.beside("fsck")


@dataclass(frozen=True)
class Done:
    """The outcome of a finished command."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """What processes get: no setting from outside, records for machines."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTREAM_")}
    lease = {"RUNSTREAM_EXECUTOR_LEASE_SECONDS": str(LEASE_SECONDS)}
    return {**ours, **lease, "RUNSTREAM_LOG_FORMAT": "json", "RUNSTREAM_TOKEN": TOKEN, "COLUMNS": "200"}


async def command(*words: str, seconds: float = 50.0, objects: Mapping[str, str] = MappingProxyType({})) -> Done:
    """Run `runstream` to its end."""
    process = await forked(SERVICE, words, environment() | dict(objects), stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Done(process.returncode or 0, out.decode(), err.decode())


async def kill_server(server: Server) -> None:
    """Kill a server and all its processes with SIGKILL."""
    process = server.process
    assert process is not None
    main = psutil.Process(process.pid)
    family = [main, *main.children(recursive=True)]
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    await process.ended.wait()
    await asyncio.to_thread(psutil.wait_procs, family, 10)


@contextlib.asynccontextmanager
async def servers(folder: Path, objects: Mapping[str, str] | None = None) -> AsyncIterator[Deployment]:
    """A NATS and a Postgres, without any process of ours; objects are in the same folder if nothing else is said."""
    objects = {"RUNSTREAM_OBJECTS_DIR": str(folder / "objects")} if objects is None else objects
    deployment = Deployment(folder, NatsServer(folder / "nats"), PostgresServer(folder / "postgres"), objects)
    await prepare(deployment.postgres.folder)
    try:
        await asyncio.gather(deployment.nats.start(), deployment.postgres.start())
        yield deployment
    except BaseException:
        _tell(deployment)
        raise
    finally:
        await _end(deployment)


@contextlib.asynccontextmanager
async def deployed(
    folder: Path,
    *options: str,
    schedulers: int = 2,
    executors: int = 3,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Deployment]:
    """All of it, serving: one gateway, these schedulers and executors.

    `options` and `settings`, which are variables, are those of the executors.
    """
    async with servers(folder) as deployment:
        deployment.process("gateway", "gateway")
        for number in range(schedulers):
            deployment.process(f"scheduler{number}", "scheduler")
        for number in range(executors):
            deployment.process(f"executor{number}", "executor", *options).environment.update(settings)
        async with _serving(deployment):
            yield deployment


@contextlib.asynccontextmanager
async def in_one_process(
    folder: Path, *options: str, components: str = "gateway,scheduler,executor"
) -> AsyncIterator[Deployment]:
    """Gateway, scheduler and executor in one process, its servers apart."""
    async with servers(folder) as deployment:
        deployment.process("gateway", components, *options)
        async with _serving(deployment):
            yield deployment


@contextlib.asynccontextmanager
async def _serving(deployment: Deployment) -> AsyncIterator[None]:
    await asyncio.gather(*(process.start() for process in deployment.processes.values()))
    yield
    codes = await asyncio.gather(*(process.stop() for process in deployment.processes.values()))
    assert not any(codes), dict(zip(deployment.processes, codes, strict=True))


async def _end(deployment: Deployment) -> None:
    await asyncio.gather(*(process.kill() for process in deployment.processes.values()))
    await asyncio.gather(deployment.nats.stop(), deployment.postgres.stop())


def _tell(deployment: Deployment) -> None:
    """Print the processes' last records; pytest shows them with a failed test."""
    logs = [process.stderr for process in deployment.processes.values()]
    for log in (*logs, deployment.nats.folder / "nats.log", deployment.postgres.folder / "postgres.log"):
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        print(f"--- {log.name}, {len(lines)} lines", *lines[-_SHOWN_LINES:], sep="\n")  # noqa: T201
