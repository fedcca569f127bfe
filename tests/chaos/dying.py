"""`runstream` with these words, which is killed by -9 right before, or a moment after, a request to NATS or Postgres.

    python -m tests.chaos.dying '{"request": 17, "seconds": 0.002, "counted": "FILE", "shared_out": false}' rebuild …

`request` 0 is never; what each request was is written down, a line each. Some moments last a millisecond and decide a
lot (the switch of an import is one), and no clock would hit them.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from asyncpg.prepared_stmt import PreparedStatement
from nats.aio.client import Client

from runstream.projections import rebuild
from runstream.service.main import main


class Death(msgspec.Struct, frozen=True):
    """When the process ends."""

    request: int
    seconds: float
    """How long after the request; less than 0 is before it."""
    counted: str
    """The file with a line for each request so far."""
    shared_out: bool
    """Whether work on partitions is done by other processes, however little it is."""


class Requests:
    """Counts the requests, and ends the process."""

    def __init__(self, death: Death) -> None:
        self._death = death
        self._number = 0

    def count(self, what: str) -> None:
        self._number += 1
        with Path(self._death.counted).open("a") as file:
            file.write(f"{what}\n")
        if self._number == self._death.request:
            if self._death.seconds < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            asyncio.get_running_loop().call_later(self._death.seconds, os.kill, os.getpid(), signal.SIGKILL)

    def counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **options: Any) -> Any:
            self.count(f"{method.__name__} {kind_of(*args)}")
            return method(*args, **options)

        return counting


def kind_of(*args: object) -> str:
    """What kind of request it is: a word or two of the statement, or the subject, without numbers and names."""
    text = next((arg for arg in args[1:] if isinstance(arg, str)), "")
    if args and isinstance(args[0], PreparedStatement):
        text = args[0].get_query()
    return " ".join(re.sub(r"[0-9a-f]*[0-9][\w-]*|\s+", " ", text).split())[:60]


def watch(death: Death) -> None:
    requests = Requests(death)
    places: tuple[tuple[Any, str], ...] = (
        (asyncpg, "connect"),
        (asyncpg.Connection, "execute"),
        (asyncpg.Connection, "_execute"),
        (asyncpg.Connection, "_prepare"),
        (asyncpg.Connection, "_copy_in"),
        (PreparedStatement, "_PreparedStatement__bind_execute"),
        (Client, "publish"),
    )
    for place, name in places:
        setattr(place, name, requests.counted(getattr(place, name)))
    if death.shared_out:
        rebuild.MANY = 0
        vars(rebuild)["processors"] = lambda: 2


if __name__ == "__main__":
    watch(msgspec.json.decode(sys.argv.pop(1), type=Death))
    main()
