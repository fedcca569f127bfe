"""One server process: started detached from the terminal, watched, and ended; nobody else's process is touched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from runstream.embedded.files import pick_port, tail, write_private
from runstream.errors import InternalError

_LAUNCH = Path(__file__).with_name("launch.py")
_ASK_SECONDS = 0.02
_START_SECONDS = 120.0
"""At start NATS reads its whole log, and Postgres recovers after a crash."""
_ATTEMPTS = 5
"""A port that was free may be taken before the server has it."""
_PAUSE_SECONDS = 0.1
_MAX_LOG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Command:
    """How a server is run."""

    name: str
    """For people: `NATS`."""
    arguments: Sequence[str | Path]
    log: Path
    stop_signal: signal.Signals
    user: str = "-"
    """Whom to run as; `-` for the present user."""
    tied: bool = True
    """Whether the server gets its stop signal when this process (its main thread) dies."""


class ServerProcess:
    """A running server; `ended` is set when it is gone, for whatever reason."""

    def __init__(self, command: Command) -> None:
        _rotate(command.log)
        self.command = command
        self.ended = asyncio.Event()
        death = command.stop_signal.value if command.tied else 0
        with command.log.open("ab") as log:
            # Its own session: a Ctrl-C is ours to handle, the servers are stopped last.
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
        """Whether the server is there."""
        return self._popen.poll() is None

    async def until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until the server is ready. Raises InternalError when it ends or is not ready in time.

        Neither server can call back, so it is asked fifty times a second.
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
        """The error that says where the server's log is and what it said last."""
        said = tail(self.command.log)
        return InternalError(
            message,
            code="embeddedServerFailed",
            details={"log": str(self.command.log), "said": said},
            hint=f"its log is {self.command.log}; the last lines are:\n{said}",
        )

    async def stop(self, seconds: float) -> None:
        """Ask the server to stop, wait, and kill it when it has not; returns when it is gone."""
        await end_process(psutil.Process(self.pid) if self.running else None, self.command.stop_signal, seconds)
        self._popen.wait(timeout=seconds)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._popen.wait()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self.ended.set)


async def start_on_a_port(
    remembered: Path,
    launched: Callable[[int], ServerProcess],
    ready: Callable[[], bool],
    *,
    again: Callable[[InternalError], bool],
) -> None:
    """Start a server, on the port that the file names where that is free, and note the port when it is ready.

    What fails for a reason that passes (`again`), such as a port that was taken meanwhile, is tried a few times.
    Raises InternalError with its last words; then nothing of it is left.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        port = pick_port(remembered)
        process = launched(port)
        try:
            await process.until(ready, _START_SECONDS)
        except BaseException as error:
            await process.stop(1.0)
            if attempt < _ATTEMPTS and isinstance(error, InternalError) and again(error):
                await asyncio.sleep(_PAUSE_SECONDS * attempt)
                continue
            raise
        write_private(remembered, str(port))
        return


async def end_process(process: psutil.Process | None, stop_signal: signal.Signals, seconds: float) -> None:
    """End a process and what it started: first the signal, then, after these seconds, KILL."""
    if process is None:
        return
    try:
        family = [process, *process.children(recursive=True)]
        process.send_signal(stop_signal)
    except psutil.NoSuchProcess:  # it has ended by itself
        return
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, seconds)
    for each in alive:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            each.kill()
    await asyncio.to_thread(psutil.wait_procs, alive, seconds)


def find_process(pid: int, executable: str, argument: str) -> psutil.Process | None:
    """The process of this pid, if it is this program and was started with this argument; else None.

    Pids are used again, so a pid alone is no proof.
    """
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
