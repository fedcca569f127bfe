"""`runstream` with these arguments, killed with SIGKILL just before or after a request to NATS or Postgres.

    python -m tests.chaos.dying '{"kind": "execute COMMIT", "number": 2, "seconds": 0.002, "told": "FILE"}' rebuild …

What each request was is written to the file, a line each. Some moments last a millisecond and decide a lot (the switch
of an import is one), and no clock would hit them.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import Counter
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

    told: str
    """The file with a line for each request so far."""
    kind: str = ""
    """Prefix of the request's line; empty for never."""
    number: int = 1
    """Which request of that kind, from 1."""
    seconds: float = 0.0
    """Seconds after the request; negative for just before it."""
    shared_out: bool = False
    """Whether work on partitions is done by other processes, however little it is."""


class Requests:
    """Counts the requests, and ends the process."""

    def __init__(self, death: Death) -> None:
        self._death = death
        self._counted: Counter[str] = Counter()

    def count(self, what: str) -> None:
        with Path(self._death.told).open("a") as file:
            file.write(f"{what}\n")
        if not self._death.kind or not what.startswith(self._death.kind):
            return
        self._counted[self._death.kind] += 1
        if self._counted[self._death.kind] == self._death.number:
            if self._death.seconds < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            asyncio.get_running_loop().call_later(self._death.seconds, os.kill, os.getpid(), signal.SIGKILL)

    def counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **options: Any) -> Any:
            self.count(f"{method.__name__} {kind_of(*args)}")
            return method(*args, **options)

        return counting

    def count_all(self, place: Any, *names: str) -> None:
        """Count calls of these methods of a class."""
        for name in names:
            setattr(place, name, self.counted(getattr(place, name)))


def kind_of(*args: object) -> str:
    """What kind of request it is: the beginning of the statement, or the subject, without numbers and names."""
    text = next((arg for arg in args[1:] if isinstance(arg, str)), "")
    if args and isinstance(args[0], PreparedStatement):
        text = args[0].get_query()
    return " ".join(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]*[0-9][\w-]*|\s+", " ", text).split())[:60]


def watch(death: Death) -> Requests:
    """Count the requests to NATS and Postgres from now on."""
    requests = Requests(death)
    requests.count_all(asyncpg, "connect")
    requests.count_all(asyncpg.Connection, "execute", "_execute", "_prepare", "_copy_in")
    requests.count_all(PreparedStatement, "_PreparedStatement__bind_execute")
    requests.count_all(Client, "publish")
    if death.shared_out:
        rebuild.MANY = 0
        vars(rebuild)["processors"] = lambda: 2
    return requests


if __name__ == "__main__":
    watch(msgspec.json.decode(sys.argv.pop(1), type=Death))
    main()
