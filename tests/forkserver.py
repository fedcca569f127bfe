"""Processes with everything imported: forked from one that has done it once, as importing costs most of a short one.

    process = await forked(SERVICE, ["run", "list"], environment, stdout=PIPE)
    PATH = f"{commands()}:{PATH}"  # for a shell: its `runstream` does the same

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
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
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
_READY = b"ready"
_DEFAULTS = (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD)
"""Signals that have their default effect in a forked process, whatever the session inherited: nohup ignores SIGHUP."""
_COMMAND = f"""#!{{python}} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, {_MOST})
server.connect({{path!r}})
environment = dict(os.environ)
environment["PATH"] = environment["PATH"].replace({{folder!r}} + os.pathsep, "")
request = dict(module="{SERVICE}", words=sys.argv[1:], environment=environment, folder=os.getcwd())
socket.send_fds(server, [json.dumps(request).encode()], [1, 2, 0])
pid = int(server.recv(100))
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(pid, number))
os.close(0)
os.close(1)
code = int(server.recv(100) or -signal.SIGKILL)
os._exit(code if code >= 0 else 128 - code)
"""
"""The program of a shell. What it starts finds the real one in its path."""


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
    server = _server()
    await server.imported()
    pid = server.ask(request, [*files, told])
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
        self.folder = Path(tempfile.mkdtemp(prefix="runstream-forks-"))
        path = self.folder / "socket"
        commands = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        commands.bind(str(path))
        commands.listen(100)
        (self.folder / "runstream").write_text(
            _COMMAND.format(python=sys.executable, folder=str(self.folder), path=str(path))
        )
        (self.folder / "runstream").chmod(0o755)
        with its, commands:
            numbers = [its.fileno(), commands.fileno()]
            words = [sys.executable, "-m", "tests.forkserver", *map(str, numbers)]
            self._process = subprocess.Popen(words, cwd=_ROOT, pass_fds=numbers, stdin=subprocess.DEVNULL)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
        atexit.register(self.end)
        self._importing = threading.Lock()
        self._imported = False

    async def imported(self) -> None:
        """Wait until it has imported everything: seconds on a busy machine, for which no service may stand still."""
        if not self._imported:
            await asyncio.to_thread(self._told)

    def _told(self) -> None:
        with self._importing:
            if not self._imported:
                assert self._socket.recv(100) == _READY, "the server of forked processes has ended"
                self._imported = True

    def ask(self, request: dict[str, object], files: list[int]) -> int:
        """The pid of a process that does this."""
        socket.send_fds(self._socket, [json.dumps(request).encode()], files)
        answer = self._socket.recv(100)
        assert answer, "the server of forked processes has ended"
        return int(answer)

    def end(self) -> None:
        self._socket.close()
        self._process.wait()
        shutil.rmtree(self.folder)


@cache
def _server() -> _Server:
    return _Server()


def commands() -> Path:
    """A folder with a program `runstream`, which runs it in a forked process.

    A shell does not notice, but for `$!`, which is the pid of this program; it passes on signals.
    """
    return _server().folder


def _serve(requests: socket.socket, commands: socket.socket) -> None:
    """Fork for every request; say how each process has ended; end with the socket. Forked processes return."""
    children: dict[int, int] = {}
    wakes, wake = os.pipe()
    watched: list[socket.socket | int] = [requests, commands, wakes]
    os.set_blocking(wake, False)
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select(watched, [], [])
        if wakes in ready:
            os.read(wakes, 4096)
            _reap(children)
        if requests in ready:
            content, files, _, _ = socket.recv_fds(requests, _MOST, 3)
            if not content:
                sys.exit(0)
            asked, told = requests, files.pop()
        elif commands in ready:
            asked, _ = commands.accept()
            content, files, _, _ = socket.recv_fds(asked, _MOST, 3)
            if not content:
                asked.close()
                continue
            told = os.dup(asked.fileno())
        else:
            continue
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for file in (wakes, wake, told, requests.detach(), commands.detach(), *children.values()):
                os.close(file)
            if asked is not requests:
                asked.close()
            _become(json.loads(content), files)
            return
        for file in files:
            os.close(file)
        children[pid] = told
        with contextlib.suppress(BrokenPipeError):
            asked.send(str(pid).encode())
        if asked is not requests:
            asked.close()


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
    for file, number in zip(files, (1, 2, 0), strict=False):
        os.dup2(file, number)
        os.close(file)
    # The server's own are of other files; these are as those of a fresh process whose output is no terminal.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    for number in _DEFAULTS:
        signal.signal(number, signal.SIG_DFL)
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
    requests, commands = (socket.socket(fileno=int(word)) for word in sys.argv[1:])
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    requests.send(_READY)
    _serve(requests, commands)
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
