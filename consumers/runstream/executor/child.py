"""One command of a step: started in a session of its own, its output handed on as it comes, its end awaited.

With a tty, standard output and error are one stream of a pseudo-terminal, with its line ends; without, one
pipe. Standard input stays open and empty. What still runs when the command itself has ended keeps its output
open, but is no longer listened to.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runstream.bounded import heard
from runstream.executor.process_tree import readable

_READ_BYTES = 64 << 10
_DRAIN_SECONDS = 0.25
"""How long output is awaited after the command's end, when something else holds it open."""
_ROWS, _COLUMNS = 40, 120

Output = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Command:
    """What is to be executed, where, and how."""

    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    tty: bool = False


class Child:
    """A started command. `close` when the task has ended."""

    def __init__(self, command: Command, output: Output) -> None:
        """Start it; blocks for about a millisecond. Raises OSError when it cannot be executed."""
        inner, self._output_end, others = _terminal() if command.tty else _pipes()
        stdin, stdout = inner
        self._kept = others
        try:
            self._process = subprocess.Popen(
                command.arguments,
                stdin=stdin,
                stdout=stdout,
                stderr=stdout,
                cwd=command.folder,
                env=command.environment,
                start_new_session=True,
            )
        except BaseException:
            self._kept.append(self._output_end)
            self._close_kept()
            raise
        finally:
            for descriptor in {stdin, stdout}:
                os.close(descriptor)
        self._output: Output | None = output
        self._drained = asyncio.Event()
        self._open = True
        os.set_blocking(self._output_end, False)
        asyncio.get_running_loop().add_reader(self._output_end, self._read)

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its session and group."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for its end and its output. The exit status; 128 + n when signal n ended it, as shells say it."""
        handle = os.pidfd_open(self.pid)
        try:
            await readable(handle)
        finally:
            os.close(handle)
        status = self._process.wait()
        if not self._drained.is_set():
            await heard(self._drained, _DRAIN_SECONDS)
        self._output = None
        return status if status >= 0 else 128 - status

    def close(self) -> None:
        """Let go of its output; to be called when it is known to have ended."""
        self._end_output()
        self._close_kept()
        self._process.poll()

    def _read(self) -> None:
        try:
            chunk = os.read(self._output_end, _READ_BYTES)
        except BlockingIOError:  # it has written nothing more yet
            return
        except OSError:  # a terminal says so when nobody holds its other side any more
            chunk = b""
        if not chunk:
            self._end_output()
        elif self._output is not None:
            self._output(chunk)

    def _end_output(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._output_end)
            os.close(self._output_end)
            self._drained.set()

    def _close_kept(self) -> None:
        while self._kept:
            os.close(self._kept.pop())


def _terminal() -> tuple[tuple[int, int], int, list[int]]:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    return (theirs, theirs), ours, []


def _pipes() -> tuple[tuple[int, int], int, list[int]]:
    stdin, stdin_ours = os.pipe()
    stdout_ours, stdout = os.pipe()
    return (stdin, stdout), stdout_ours, [stdin_ours]
