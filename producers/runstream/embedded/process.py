"""A server process: started detached from the terminal, watched and ended; its credentials, port and log.

Other processes are never touched: a leftover is identified by its pid, program and argument together.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil

from runstream.atomic_files import replace_file
from runstream.backoff import Backoff, retry
from runstream.errors import InternalError

_LAUNCH = Path(__file__).with_name("launch.py")
_ASK_SECONDS = 0.02
_START_SECONDS = 120.0
"""Time to start: NATS reads its whole log, and Postgres recovers after a crash."""
_ATTEMPTS = 5
"""Attempts to start: a port that was free may be taken before the server binds it."""
_PAUSE_SECONDS = 0.1
_MAX_LOG_BYTES = 16 << 20
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """The command line of a server, and how to run and stop it."""

    name: str
    """The name in messages, such as `NATS`."""
    arguments: Sequence[str | Path]
    log: Path
    stop_signal: signal.Signals
    user: str = "-"
    """The user to run as; `-` for the current user."""
    tied: bool = True
    """True if the server gets its stop signal when this process (its main thread) dies."""


class ServerProcess:
    """A running server; `ended` is set when it has ended, for whatever reason."""

    def __init__(self, command: ServerCommand) -> None:
        _rotate(command.log)
        self.command = command
        self.ended = asyncio.Event()
        death = command.stop_signal.value if command.tied else 0
        with command.log.open("ab") as log:
            # A session of its own: we handle Ctrl-C, and stop the servers last.
            self._popen = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), str(death), command.user),
                    *command.arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, args=(loop,), name=f"{command.name} watch", daemon=True).start()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._popen.poll() is None

    async def until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until the server is ready. Raises InternalError when it ends or is not ready in time.

        Neither server can signal it, so `ready` is polled fifty times a second.
        """
        try:
            async with asyncio.timeout(seconds):
                while not ready():
                    if not self.running:
                        raise self.failure(f"{self.command.name} ended while it started")
                    await asyncio.sleep(_ASK_SECONDS)
        except TimeoutError as error:
            raise self.failure(f"{self.command.name} was not ready after {seconds:.0f} seconds") from error

    def failure(self, message: str) -> InternalError:
        """Return the error with the path of the server's log and its last lines."""
        last_lines = tail(self.command.log)
        return InternalError(
            message,
            code="embeddedServerFailed",
            details={"log": str(self.command.log), "said": last_lines},
            hint=f"its log is {self.command.log}; the last lines are:\n{last_lines}",
        )

    async def stop(self, seconds: float) -> None:
        """Stop the server, kill it after `seconds`, and wait for its end."""
        await end_process(psutil.Process(self.pid) if self.running else None, self.command.stop_signal, seconds)
        self._popen.wait(timeout=seconds)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._popen.wait()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self.ended.set)


class EmbeddedServer(ABC):
    """A server whose data is in `folder`; it ends when this process dies if it is `tied`."""

    _transient: ClassVar[tuple[str, ...]]
    """Texts in the log of a failed start that may be repeated, as when its port was taken meanwhile."""

    def __init__(self, folder: Path, *, durable: bool, tied: bool) -> None:
        self.folder = folder.resolve()
        self.process: ServerProcess | None = None
        self._durable = durable
        self._tied = tied
        self._port = 0

    @property
    def port(self) -> int:
        """The port of the running server, else its last one."""
        return self._port or int((self.folder / "port").read_text())

    @abstractmethod
    def _command(self) -> ServerCommand:
        """Write what the server needs, and return how to start it on the port."""

    @abstractmethod
    def _ready(self) -> bool:
        """Return whether this server is ready."""

    async def stop(self, seconds: float = 4.0) -> None:
        """Stop the server without waiting for its clients; kill it after `seconds`."""
        if self.process is not None:
            await self.process.stop(seconds)

    async def _start_on_a_port(self) -> None:
        """Start the server on its last port, else on a free one, and store the port when it is ready.

        Raises InternalError with the end of its log; no process is left then.
        """
        remembered = self.folder / "port"

        async def start() -> None:
            self._port = pick_port(remembered)
            process = self.process = ServerProcess(self._command())
            try:
                await process.until(self._ready, _START_SECONDS)
            except BaseException:
                await process.stop(1.0)
                raise

        def note(error: InternalError, _: float) -> None:
            if not any(sign in str(error.details.get("said")) for sign in self._transient):
                raise error

        await retry(start, InternalError, Backoff(_PAUSE_SECONDS, 4 * _PAUSE_SECONDS, attempts=_ATTEMPTS), note)
        replace_file(remembered, str(self._port).encode())


async def end_process(process: psutil.Process | None, stop_signal: signal.Signals, seconds: float) -> None:
    """End a process and its children: send the signal, and KILL after `seconds`."""
    if process is None:
        return
    try:
        family = [process, *process.children(recursive=True)]
        process.send_signal(stop_signal)
    except psutil.NoSuchProcess:  # it ended by itself
        return
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, seconds)
    for each in alive:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            each.kill()
    await asyncio.to_thread(psutil.wait_procs, alive, seconds)


def find_process(pid: int, executable: str, argument: str) -> psutil.Process | None:
    """Return the process with this pid if it runs this program with this argument, else None: pids are reused."""
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
    except psutil.Error:
        return None
    if words and Path(words[0]).name == executable and argument in words:
        return process
    return None


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))


@dataclass(frozen=True, slots=True)
class Identity:
    """A server's name, and its credentials, which only this user can read."""

    name: str
    password: str
    admin_password: str

    @classmethod
    def of(cls, folder: Path) -> Identity:
        """Read the identity from a server's folder; create it at the first start."""
        path = folder / "credentials.json"
        if path.exists():
            return cls(**json.loads(path.read_text()))
        made = cls(f"runstream-{secrets.token_hex(4)}", secrets.token_urlsafe(24), secrets.token_urlsafe(24))
        content = {"name": made.name, "password": made.password, "admin_password": made.admin_password}
        replace_file(path, json.dumps(content).encode())
        return made


def pick_port(remembered: Path) -> int:
    """Return the port in the file if it is still free, else any free one. It is not reserved until it is bound."""
    text = remembered.read_text() if remembered.exists() else ""
    return free_port(LOOPBACK, int(text) if text.isdigit() else 0)


def free_port(host: str, wanted: int = 0) -> int:
    """Return the wanted port if it is free, else any free one."""
    try:
        return _bindable(host, wanted)
    except OSError:
        return _bindable(host, 0)


def _bindable(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        found: int = probe.getsockname()[1]
        return found


def tail(path: Path, lines: int = 5) -> str:
    """Return the last lines of a log, for an error message; empty without a log."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
