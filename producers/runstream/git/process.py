"""A program with pipes to its input, output and messages, started by vfork.

An event loop starts programs by fork, which copies the page tables of this process: tens of milliseconds in a large
one. `subprocess` uses vfork, as long as it is given neither a function to call in the child nor another user or group.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import IO


class PipedProcess:
    """A program that runs in a session of its own."""

    stdin: StreamWriter
    stdout: StreamReader
    stderr: StreamReader

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Raises FileNotFoundError if the program or the folder does not exist."""
        self._popen = subprocess.Popen(
            command,
            bufsize=0,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        self._transports: list[asyncio.BaseTransport] = []
        self._ended = asyncio.Event()
        self._handle = -1

    @classmethod
    async def start(cls, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> PipedProcess:
        """Start a program. Raises FileNotFoundError if it, or the folder, does not exist."""
        process = cls(command, folder, environment)
        try:
            await process._connect()
        except BaseException:  # no descriptor is left, for example
            process.signal_all(signal.SIGKILL)
            process._popen.wait()
            if process._handle >= 0:
                process._has_ended()
            process.close()
            raise
        return process

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._popen.returncode

    async def wait(self) -> int:
        """Wait for its end; return its exit status."""
        await self._ended.wait()
        return self._popen.wait()

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to it and its children. Raises ProcessLookupError once all have ended."""
        os.killpg(self._popen.pid, number)

    def close(self) -> None:
        """Close the pipes, whose other ends may be open, and whose output may be unread."""
        for transport in self._transports:
            transport.close()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr)[len(self._transports) :]:
            _required(pipe).close()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._handle = os.pidfd_open(self._popen.pid)
        loop.add_reader(self._handle, self._has_ended)
        nothing = StreamReader()
        protocol = StreamReaderProtocol(nothing)  # StreamWriter needs its flow control
        into, _ = await loop.connect_write_pipe(lambda: protocol, _required(self._popen.stdin))
        self._transports.append(into)
        self.stdin = StreamWriter(into, protocol, nothing, loop)
        self.stdout = await self._reader(_required(self._popen.stdout))
        self.stderr = await self._reader(_required(self._popen.stderr))

    async def _reader(self, pipe: IO[bytes]) -> StreamReader:
        reader = StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: StreamReaderProtocol(reader), pipe)
        self._transports.append(transport)
        return reader

    def _has_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self._popen.wait()
        self._ended.set()


def _required(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101
    return pipe
