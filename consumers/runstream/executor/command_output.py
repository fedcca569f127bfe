"""The output of one command, handed on as it comes, to its end.

The output may be held open by processes that outlive the command. One that still reads from a pipe which nobody
writes to any more, as `tee` does behind `exec > >(tee log)`, is waited for: the last lines are its. A server that was
started in the background is not: its output is read on, and dropped.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import termios
from collections.abc import Callable, Iterable

from runstream.bounded import heard

Output = Callable[[bytes], None]

_READ_BYTES = 64 << 10
_QUIET_SECONDS = 0.25
"""How long output is awaited after the command's end while something holds it open."""
_BUSY_SECONDS = 2.0
"""How long output that never pauses is awaited."""
_READER_SECONDS = 10.0
"""How long a reader that has read its pipe to the end may take to write what it makes of that."""
_UNREAD_SECONDS = 300.0
"""How long a reader may take for what is still in its pipe."""
_NUDGE_SECONDS = 1.0
_END_OF_INPUT = b"\x04"


class CommandOutput:
    """Reads from a descriptor, which it owns, in the event loop. `close` it when the task has ended."""

    def __init__(self, descriptor: int, output: Output, *, tty: bool) -> None:
        self._descriptor = descriptor
        self._output: Output | None = output
        self._drained = asyncio.Event()
        self._open = True
        self._count = 0
        self._nudge: asyncio.TimerHandle | None = None
        os.set_blocking(descriptor, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)
        if tty:
            self._nudge = self._loop.call_later(_NUDGE_SECONDS, self._end_input)

    async def finish(self, members: Callable[[], Iterable[int]]) -> None:
        """Wait for the output's end after the command has ended; `members` are the task's processes now."""
        begun, patience, read = self._loop.time(), _BUSY_SECONDS, self._count
        while not await heard(self._drained, _QUIET_SECONDS):
            unread = await asyncio.to_thread(lambda: _unread(members()))
            if unread is not None:
                patience = _UNREAD_SECONDS if unread else _READER_SECONDS
            quiet, read = read == self._count, self._count
            if (unread is None and quiet) or self._loop.time() - begun > patience:
                break
        self._output = None

    def close(self) -> None:
        """Let go of the output; a second close does nothing."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            if self._nudge is not None:
                self._nudge.cancel()
            os.close(self._descriptor)
            self._drained.set()

    def _read(self) -> None:
        try:
            chunk = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:  # it has written nothing more yet
            return
        except OSError:  # a terminal says so when nobody holds its other side any more
            chunk = b""
        if not chunk:
            self.close()
            return
        self._count += len(chunk)
        if self._output is not None:
            self._output(chunk)

    def _end_input(self) -> None:
        """End the input of a program that has changed the terminal so that it can wait for keys: none ever come."""
        self._nudge = self._loop.call_later(_NUDGE_SECONDS, self._end_input)
        with contextlib.suppress(OSError, termios.error):  # the terminal's other side is gone, or its queue is full
            modes = termios.tcgetattr(self._descriptor)
            if modes[3] & termios.ICANON or modes[6][termios.VMIN] not in (0, b"\0"):
                os.write(self._descriptor, _END_OF_INPUT)


def _unread(pids: Iterable[int]) -> int | None:
    """Return the bytes in pipes that processes read from and nobody writes to; None without such a reader."""
    readers: dict[str, str] = {}
    written: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                path = f"/proc/{pid}/fd/{name}"
                target = os.readlink(path)  # noqa: PTH115
                if not target.startswith("pipe:"):
                    continue
                if os.lstat(path).st_mode & 0o200:
                    written.add(target)
                elif name == "0":
                    readers[target] = path
    waiting = [path for pipe, path in readers.items() if pipe not in written]
    return sum(_pending(path) for path in waiting) if waiting else None


def _pending(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        count = array.array("i", [0])
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
        return count[0]
    finally:
        os.close(descriptor)
