"""Three NATS servers as one cluster on this machine, whose nodes a test kills, stops and cuts off from their peers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from runstream.embedded.process import ServerCommand, ServerProcess, free_port
from runstream.errors import InternalError
from runstream.jetstream.api import request
from runstream.jetstream.connection import nats_connection
from tests.links import Link, link

NODES = 3
_CONFIG = """\
server_name: n{number}
host: 127.0.0.1
port: {port}
max_payload: 8388608
jetstream {{ store_dir: "{folder}/store", sync_interval: always }}
cluster {{
  name: test
  host: 127.0.0.1
  port: {route}
  # What other nodes are told to connect to: nothing, so that they use the links alone.
  advertise: "127.0.0.1:1"
  no_advertise: true
  pool_size: -1
  routes: [{routes}]
}}
"""


class Node:
    """One server of a cluster."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self.folder = folder
        self.port = free_port("127.0.0.1")
        self.route = free_port("127.0.0.1")
        self.links: list[Link] = []
        """All links from and to its peers."""
        self.process: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def configure(self, routes: list[str]) -> None:
        self.folder.mkdir()
        text = _CONFIG.format(
            number=self.number, port=self.port, route=self.route, folder=self.folder, routes=", ".join(routes)
        )
        (self.folder / "nats.conf").write_text(text)

    def launch(self) -> None:
        program = Path(sys.executable).with_name("nats-server")
        words = (program, "--config", self.folder / "nats.conf")
        self.process = ServerProcess(ServerCommand(f"n{self.number}", words, self.folder / "nats.log", signal.SIGTERM))

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        await self.process.ended.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def cut_off(self) -> None:
        """Cut its links to its peers; its clients stay connected."""
        for each in self.links:
            each.cut()

    def join(self) -> None:
        for each in self.links:
            each.mend()


class Cluster:
    """The nodes; made by `cluster`."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return ",".join(node.url for node in self.nodes)

    async def ready(self) -> None:
        """Wait until JetStream has a leader and all peers."""
        async with nats_connection(self.url, seconds=30) as nc:
            while True:
                try:
                    await request(nc, "INFO", seconds=1)
                    stream = {"name": "ready", "num_replicas": NODES, "storage": "memory"}
                    await request(nc, "STREAM.CREATE.ready", stream, seconds=2)
                    await request(nc, "STREAM.DELETE.ready", seconds=2)
                except InternalError:
                    await asyncio.sleep(0.1)  # sleeps: nothing tells that a cluster has a leader
                else:
                    return


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    """A cluster that is ready; its nodes are ended with the block."""
    nodes = [Node(number, folder / f"n{number}") for number in range(NODES)]
    async with AsyncExitStack() as stack:
        for node in nodes:
            routes = []
            for peer in nodes:
                if peer is not node:
                    way = await stack.enter_async_context(link(f"nats-route://127.0.0.1:{peer.route}"))
                    node.links.append(way)
                    peer.links.append(way)
                    routes.append(way.url)
            node.configure(routes)
        try:
            for node in nodes:
                node.launch()
            made = Cluster(nodes)
            await made.ready()
            yield made
        finally:
            for node in nodes:
                node.join()
                if node.process is not None and node.process.running:
                    node.signal(signal.SIGCONT)
                    await node.kill()
