"""A server that speaks S3 over HTTP, for tests: moto, in a process of its own."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

from runstream.embedded.process import LOOPBACK, ServerCommand, ServerProcess, end_process, find_process, pick_port

_START_SECONDS = 60.0
_PROGRAM = """
import functools, sys, threading
from moto.s3.responses import S3Response
from moto.server import main

def one_at_a_time(put, lock=threading.Lock()):
    @functools.wraps(put)
    def locked(*arguments):
        with lock:
            return put(*arguments)
    return locked

S3Response.put_object = one_at_a_time(S3Response.put_object)
main(sys.argv[1:])
"""
"""Moto looks for an object, and stores one, in two steps: only S3 itself does both at once."""


class S3Server:
    """The server whose log, port and pid are in a folder; it takes any keys, and keeps objects in memory."""

    def __init__(self, folder: Path, *, tied: bool = True) -> None:
        self.folder = folder
        self._tied = tied

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def _port(self) -> int:
        return int((self.folder / "port").read_text())

    async def start(self) -> None:
        """Start it on a free port."""
        self.folder.mkdir(parents=True)
        (self.folder / "port").write_text(str(pick_port(self.folder / "port")))
        command = ServerCommand("S3", self._words(), self.folder / "s3.log", signal.SIGTERM, tied=self._tied)
        server = ServerProcess(command)
        (self.folder / "pid").write_text(str(server.pid))
        await server.until(self._ready, _START_SECONDS)

    async def end_leftover(self) -> None:
        """End it."""
        pid = int((self.folder / "pid").read_text())
        await end_process(find_process(pid, Path(sys.executable).name, str(self._port)), signal.SIGTERM, 5.0)

    def _words(self) -> list[str]:
        return [sys.executable, "-c", _PROGRAM, "-H", LOOPBACK, "-p", str(self._port)]

    def _ready(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self._port), timeout=1.0):
                return True
        except OSError:
            return False


class OwnS3Server(S3Server):
    """The small server of docker/, with the keys of the tests."""

    def _words(self) -> list[str]:
        environment = {
            "S3_FOLDER": f"{self.folder}/data",
            "S3_HOST": LOOPBACK,
            "S3_PORT": str(self._port),
            "S3_ACCESS_KEY": "test-access",
            "S3_SECRET_KEY": "test-secret",
            "S3_DURABLE": "no",
        }
        program = Path(__file__).parents[1] / "docker" / "servers" / "s3.py"
        given = [f"{name}={value}" for name, value in environment.items()]
        return ["/usr/bin/env", *given, sys.executable, str(program), str(self._port)]
