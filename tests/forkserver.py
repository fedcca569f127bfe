"""Processes with everything imported: forked from one that has done it once, as importing costs most of a short one.

    process = await forked(SERVICE, ["run", "list"], environment, stdout=PIPE)

A forked process has a pid, files, environment and signals of its own and ends like any other; only its command line
and what it was started with in `/proc` are those of the server. Tests that are about starting use a fresh process.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Never

from runstream.cli.commands import COMMANDS

PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL
SERVICE = "runstream.service"
"""The module that is the command `runstream`."""
_ROOT = Path(__file__).parents[1]
_RUNSTREAM = Path(sys.executable).with_name("runstream")
_PRELOADED = (
    "runstream.service.main",
    "runstream.service.serve",
    *sorted({f"runstream.{command.function.partition(':')[0]}" for command in COMMANDS}),
    "runstream.service.wiring.cleaner",
    "runstream.service.wiring.datamanager",
    "runstream.service.wiring.executor",
    "runstream.service.wiring.gateway",
    "runstream.service.wiring.scheduler",
    # What these import when they first need it.
    "alembic.command",
    "anyio._backends._asyncio",
    "cyclopts.validators",
    "httpcore2",
    "truststore",
    "uvicorn.lifespan.off",
)
_MOST = 1 << 20


_Pipe = tuple[asyncio.StreamReader, asyncio.ReadTransport]


class Forked:
    """A process that was forked; as much of asyncio's `Process` as tests need."""

    def __init__(self, pid: int, status: _Pipe, out: _Pipe | None, err: _Pipe | None) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout = None if out is None else out[0]
        self.stderr = None if err is None else err[0]
        self._pipes = [pipe for pipe in (status, out, err) if pipe is not None]
        self._over = asyncio.ensure_future(self._ended(status[0]))

    async def _ended(self, status: asyncio.StreamReader) -> int:
        told = await status.read()
        self.returncode = int(told) if told else -signal.SIGKILL
        return self.returncode

    async def wait(self) -> int:
        """Its exit code; what it printed and was not read is lost."""
        code = await asyncio.shield(self._over)
        for _, transport in self._pipes:
            transport.close()
        return code

    async def communicate(self) -> tuple[bytes, bytes]:
        out, err = await asyncio.gather(_rest(self.stdout), _rest(self.stderr))
        await self.wait()
        return out, err

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            if self.returncode is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


async def forked(
    module: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> Forked:
    """Run the module as a program, in a process of its own."""
    readers: list[_Pipe | None] = []
    files: list[int] = []
    ours: list[int] = []
    for given, own in ((stdout, 1), (stderr, 2)):
        if given == PIPE:
            there, here = os.pipe()
            readers.append(await _reader(there))
            files.append(here)
            ours.append(here)
        else:
            readers.append(None)
            files.append(own if given is None else _number(given))
    status, told = os.pipe()
    request: dict[str, object] = {
        "module": module,
        "words": [*words],
        "environment": dict(environment),
        "folder": str(Path.cwd()),
    }
    pid = _server().ask(request, [*files, told])
    for file in (*ours, told):
        os.close(file)
    return Forked(pid, await _reader(status), *readers)


def _number(given: int | IO[bytes]) -> int:
    if given == DEVNULL:
        return _nothing()
    return given if isinstance(given, int) else given.fileno()


@cache
def _nothing() -> int:
    return os.open(os.devnull, os.O_RDWR)


async def _reader(pipe: int) -> _Pipe:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    # libuv closes the descriptor itself: a second close could hit one that a thread has opened since.
    by_libuv = type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    opened = os.fdopen(pipe, "rb", 0, closefd=not by_libuv)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, opened)
    return reader, transport


async def _rest(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


class _Server:
    """The process that has imported everything, one for each process that runs tests; it ends with that."""

    def __init__(self) -> None:
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            words = [sys.executable, "-m", "tests.forkserver", str(its.fileno())]
            self._process = subprocess.Popen(words, cwd=_ROOT, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
        atexit.register(self.end)

    def ask(self, request: dict[str, object], files: list[int]) -> int:
        """The pid of a process that does this."""
        socket.send_fds(self._socket, [json.dumps(request).encode()], files)
        answer = self._socket.recv(100)
        assert answer, "the server of forked processes has ended"
        return int(answer)

    def end(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def _server() -> _Server:
    return _Server()


def _serve(requests: socket.socket) -> None:
    """Fork for every request; say how each process has ended; end with the socket. Forked processes return."""
    children: dict[int, int] = {}
    wakes, wake = os.pipe()
    watched: list[socket.socket | int] = [requests, wakes]
    os.set_blocking(wake, False)
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select(watched, [], [])
        if wakes in ready:
            os.read(wakes, 4096)
            _reap(children)
        if requests in ready:
            content, files, _, _ = socket.recv_fds(requests, _MOST, 3)
            if not content:
                sys.exit(0)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for file in (wakes, wake, requests.detach(), *children.values()):
                    os.close(file)
                _become(json.loads(content), files)
                return
            for file in files[:2]:
                os.close(file)
            children[pid] = files[2]
            requests.send(str(pid).encode())


def _reap(children: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            file = children.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(file, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(file)


def _become(request: dict[str, object], files: list[int]) -> None:
    """Be what was asked for, before its first line."""
    out, err, told = files
    os.dup2(out, 1)
    os.dup2(err, 2)
    for file in (out, err, told):
        os.close(file)
    # The server's own are of other files; these are as those of a fresh process whose output is no terminal.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = request["environment"]
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(request["folder"]))
    words = request["words"]
    assert isinstance(words, list)
    sys.argv = [str(_RUNSTREAM), *words]
    _MODULE.append(str(request["module"]))


_MODULE: list[str] = []
"""What a forked process runs."""


def _main() -> None:
    requests = socket.socket(fileno=int(sys.argv[1]))
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    _serve(requests)
    _run(_MODULE[0])


def _run(module: str) -> Never:
    """Run the module as a program and exit as the interpreter does, but without the end of each object.

    That would write to every page that the process shares with the server, and so copy it: half of the work of a short
    command.
    """
    status = 0
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
    except BaseException:  # noqa: BLE001  as the interpreter does
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
        atexit._run_exitfuncs()  # noqa: SLF001
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _main()
