"""The command line on a real terminal, of 80 columns and 24 lines unless a test says otherwise."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

PROGRAM = str(Path(sys.executable).parent / "runstream")
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """What a program wrote to its terminal; everything is kept."""

    def __init__(self, descriptor: int, process: asyncio.subprocess.Process) -> None:
        self._descriptor = descriptor
        self._process = process
        self._changed = asyncio.Event()
        self._written = b""

    @property
    def written(self) -> str:
        """Everything that was written, with its sequences."""
        return self._written.decode(errors="replace")

    @property
    def text(self) -> str:
        """Everything that was written, without sequences."""
        return _SEQUENCE.sub("", self.written).replace("\r\n", "\n")

    async def shows(self, text: str, after: int = 0) -> None:
        """Wait until the text was written."""
        while text not in self.text[after:]:
            self._changed.clear()
            assert self._process.returncode is None, self.text
            await self._changed.wait()

    def type(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self._descriptor, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._process.send_signal(signal.SIGWINCH)

    def interrupt(self) -> None:
        """Send the signal of Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    async def ended(self) -> int:
        """Wait until the program has ended and all that it wrote was read; return its exit code."""
        code = await self._process.wait()
        while self._open:
            self._changed.clear()
            await self._changed.wait()
        return code

    _open = True

    def read(self) -> None:
        try:
            chunk = os.read(self._descriptor, 65536)
        except OSError:  # the program has ended
            chunk = b""
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._open = False
        self._written += chunk
        self._changed.set()


@asynccontextmanager
async def on_terminal(
    environment: Mapping[str, str], *arguments: str, columns: int = 80, lines: int = 24
) -> AsyncIterator[Terminal]:
    """Run a command of ours on a terminal; end it when the block ends."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    told = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *arguments, env={"TERM": "xterm-256color"} | told, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    terminal = Terminal(ours, process)
    asyncio.get_running_loop().add_reader(ours, terminal.read)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
