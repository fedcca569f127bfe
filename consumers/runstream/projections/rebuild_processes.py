"""Worker processes for partitions: each takes the next piece of work when it has finished one.

    parent -> child    a piece of work
    child -> parent    an amount of work done … then the result, or the error

A child ends when its pipe does, so that it never outlives its parent, however that ended. Passwords are in the work,
never in the arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import uvloop

from runstream.errors import InternalError, RunstreamError
from runstream.garbage import collect_seldom
from runstream.lifecycle import StrictTaskGroup
from runstream.telemetry import setup_logging

W = TypeVar("W")
E = TypeVar("E")

_REPORT_SECONDS = 0.2
_SPAWN = multiprocessing.get_context("spawn")

OnDone = Callable[[int], None]
"""Called with the amount of further work done."""
Work = Callable[[W, OnDone], Awaitable[E]]
"""A module-level function whose argument and result can be pickled."""


@dataclass(frozen=True, slots=True)
class _Ended:
    result: object


@dataclass(frozen=True, slots=True)
class _Failed:
    message: str
    code: str
    hint: str = ""
    details: dict[str, Any] | None = None


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


async def run_in_processes(
    work: Work[W, E], works: Sequence[W], sizes: Sequence[int], processes: int, tell: OnDone
) -> list[E]:
    """Return the results of `work` for all works, in order; run it in this process when `processes` is 1, else in
    others.

    `sizes` are the sizes of the works, in any unit: the largest start first, so that all processes end at about the
    same time. Raises the error of the work (as InternalError from another process), and then ends all others.
    """
    if processes <= 1:
        return [await work(one, tell) for one in works]
    waiting = sorted(range(len(works)), key=lambda number: sizes[number])
    answers: dict[int, Any] = {}

    async def take() -> None:
        with _child(work) as child:
            while waiting:
                number = waiting.pop()
                answers[number] = await _result(child, works[number], tell)

    try:
        async with StrictTaskGroup() as group:
            for _ in range(min(processes, len(works))):
                group.create_task(take())
    except* RunstreamError as errors:
        raise errors.exceptions[0] from errors
    return [answers[number] for number in range(len(works))]


@contextlib.contextmanager
def _child(work: Work[W, E]) -> Iterator[Connection]:
    ours, theirs = _SPAWN.Pipe()
    child = _SPAWN.Process(target=_serve, args=(work, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        yield ours
    finally:
        child.kill()
        child.join()


async def _result(child: Connection, work: object, tell: OnDone) -> object:
    """Send a piece of work and wait for its result."""
    with contextlib.suppress(ConnectionError):  # the receive below detects the end of the process
        child.send(work)
    while True:
        try:
            answer = await asyncio.to_thread(child.recv)
        except (EOFError, ConnectionError) as error:
            raise InternalError(
                "a worker process of a partition has ended",
                code="workerProcessEnded",
                hint="it may have run out of memory: see the kernel log",
            ) from error
        match answer:
            case _Ended(result):
                return result
            case _Failed():
                raise InternalError(answer.message, code=answer.code, details=answer.details or {}, hint=answer.hint)
            case int(done):
                tell(done)


def _serve(work: Work[W, E], parent: Connection) -> None:
    """Run as the child: do one piece of work after the other until the parent ends."""
    setup_logging("warning")
    collect_seldom()
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C reaches the whole process group: the parent reports it
        uvloop.run(_work_on(work, parent))


async def _work_on(work: Work[W, E], parent: Connection) -> None:
    works: asyncio.Queue[W] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        """Receive works, also while one runs; the end of the pipe means that the parent is gone, so exit at once."""
        try:
            while True:
                loop.call_soon_threadsafe(works.put_nowait, parent.recv())
        except (EOFError, ConnectionError):
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        parent.send(await _outcome(work, await works.get(), parent))


async def _outcome(work: Work[W, E], one: W, parent: Connection) -> _Ended | _Failed:
    done, reported_at = 0, time.monotonic()

    def tell(further: int) -> None:
        nonlocal done, reported_at
        done += further
        if time.monotonic() - reported_at > _REPORT_SECONDS:
            parent.send(done)
            done, reported_at = 0, time.monotonic()

    try:
        return _Ended(await work(one, tell))
    except RunstreamError as error:
        return _Failed(error.message, error.code, error.hint, error.details)
    except Exception as error:  # noqa: BLE001  the parent reports it, whatever it is
        what = f"a process that worked on a partition failed: {type(error).__name__}: {error}"
        return _Failed(what, "workerProcessFailed")
    finally:
        parent.send(done)
