"""The measured servers and `runstream serve` processes, each with its name and its memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from runstream.embedded import NatsServer, PostgresServer
from runstream.embedded.process import tail
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log

PARTITIONS = 4
_START_SECONDS = 120.0
_STOP_SECONDS = 12.0
_RUNSTREAM = Path(sys.executable).with_name("runstream")


@dataclass(slots=True)
class Servers:
    """An embedded NATS and an embedded Postgres, both durable."""

    folder: Path
    nats: NatsServer
    postgres: PostgresServer

    def families(self) -> dict[str, list[psutil.Process]]:
        """Return every process of the servers, by the server."""
        found: dict[str, list[psutil.Process]] = {}
        for name, server in (("nats-server", self.nats), ("postgres", self.postgres)):
            if server.process is not None:
                parent = psutil.Process(server.process.pid)
                found[name] = [parent, *parent.children(recursive=True)]
        return found

    @contextlib.asynccontextmanager
    async def log(self, namespace: str) -> AsyncIterator[JetStreamLog]:
        """The log of a namespace, over a connection of its own; made when it is not there."""
        async with (
            nats_connection(self.nats.url, "benchmarks") as client,
            await open_log(client, namespace, create=True, partitions=PARTITIONS) as log,
        ):
            yield log


@contextlib.asynccontextmanager
async def servers(where: Path | None) -> AsyncIterator[Servers]:
    """Servers in a new folder below `where`, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="runstream-bench-", dir=where) as name:
        folder = Path(name)
        nats, postgres = NatsServer(folder / "nats"), PostgresServer(folder / "postgres")
        try:
            await asyncio.gather(nats.start(), postgres.start())
            yield Servers(folder, nats, postgres)
        finally:
            await asyncio.gather(nats.stop(), postgres.stop())


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the service."""

    name: str
    process: Process
    url: str


@dataclass(slots=True)
class Deployment:
    """A service: its namespace, its token, and the processes that make it up."""

    servers: Servers
    namespace: str
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    schema: str = ""
    """Of its tables; empty for the namespace."""
    profiled: str = ""
    """The part that runs under cProfile."""
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of the gateway."""
        return self.parts["gateway"].url

    @contextlib.asynccontextmanager
    async def running(self, **options: tuple[str, ...]) -> AsyncIterator[Deployment]:
        """These components run, each in a process of its own with these options, while the block lasts."""
        try:
            async with asyncio.TaskGroup() as group:
                for component, more in options.items():
                    group.create_task(self._start(component, more))
            yield self
        finally:
            await asyncio.gather(*(self._stop(part) for part in self.parts.values()))
            self.parts.clear()

    async def _start(self, component: str, more: tuple[str, ...]) -> None:
        folder = self.servers.folder
        said = (folder / f"{self.namespace}-{component}.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            *self._command(component),
            *more,
            env={
                **os.environ,
                "RUNSTREAM_NATS_URL": self.servers.nats.url,
                "RUNSTREAM_DATABASE_URL": self.servers.postgres.url,
            },
            stdout=PIPE,
            stderr=said,
        )
        said.close()
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = (await process.stdout.readline()).decode() if process.stdout is not None else ""
        except BaseException:
            process.kill()
            raise
        if " at http" not in line:
            raise RuntimeError(f"the {component} did not start; it said:\n{tail(Path(said.name))}")
        self.parts[component] = Part(component, process, line.rpartition(" at ")[2].strip())

    def _command(self, component: str) -> list[str | Path]:
        folder = self.servers.folder / self.namespace
        command: list[str | Path] = []
        if component == self.profiled:
            command = [sys.executable, "-m", "cProfile", "-o", self.servers.folder / f"{component}.prof"]
        command += [_RUNSTREAM, "--data-dir", folder / component, "--token", self.token, "serve"]
        command += ["--components", component, "--namespace", self.namespace, "--partitions", str(PARTITIONS)]
        command += ["--database-schema", self.schema or self.namespace, "--objects-dir", folder / "objects"]
        return command

    @staticmethod
    async def _stop(part: Part) -> None:
        if part.process.returncode is None:
            part.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await part.process.wait()
        except TimeoutError:
            part.process.kill()
            await part.process.wait()

    def families(self) -> dict[str, list[psutil.Process]]:
        """Every process of ours and of the servers, by the part that it belongs to."""
        return {name: [psutil.Process(part.process.pid)] for name, part in self.parts.items()} | self.servers.families()
