"""Worker processes for partitions: each takes the next piece of work when it has finished one.

    parent -> child    a piece of work, as one line of JSON
    child -> parent    {"done": 500} … then {"end": …} or {"failed": …}

A child ends when its input does, so that it never outlives its parent, however that ended. Passwords are in the work,
never in the arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any, TypeVar, get_type_hints

import msgspec
import uvloop

from runstream.errors import InternalError, RunstreamError
from runstream.garbage import collect_seldom
from runstream.telemetry import setup_logging

W = TypeVar("W")
E = TypeVar("E")

_LINE_BYTES = 1 << 20
_TELL_SECONDS = 0.2

OnDone = Callable[[int], None]
"""Called with the amount of further work done."""
Work = Callable[[W, OnDone], Awaitable[E]]
"""A module-level function whose argument and result can be JSON."""


class _Failed(msgspec.Struct):
    message: str
    code: str
    hint: str
    details: dict[str, Any]


class _ChildMessage(msgspec.Struct, omit_defaults=True):
    done: int = 0
    end: msgspec.Raw = msgspec.Raw()
    failed: _Failed | None = None


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


async def run_in_processes(
    work: Work[W, E], works: Sequence[W], sizes: Sequence[int], answer: type[E], processes: int, tell: OnDone
) -> list[E]:
    """Return the results of `work` for all works, in order; in this process when `processes` is 1, else in others.

    `sizes` are the sizes of the works, in any unit: the largest start first, so that all processes end at about the
    same time. Raises what the work raises (as InternalError from another process), and then ends all others.
    """
    if processes <= 1:
        return [await work(one, tell) for one in works]
    waiting = sorted(range(len(works)), key=lambda number: sizes[number])
    answers: dict[int, E] = {}

    async def take() -> None:
        async with _child(work) as child:
            while waiting:
                number = waiting.pop()
                answers[number] = msgspec.json.decode(await _done(child, works[number], tell), type=answer)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(processes, len(works))):
                group.create_task(take())
    except* RunstreamError as errors:
        raise errors.exceptions[0] from errors
    return [answers[number] for number in range(len(works))]


@contextlib.asynccontextmanager
async def _child(work: Work[W, E]) -> AsyncIterator[asyncio.subprocess.Process]:
    name = f"{work.__module__}:{work.__qualname__}"
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                child.kill()
            await child.wait()


async def _done(child: asyncio.subprocess.Process, work: object, tell: OnDone) -> bytes:
    """Send a piece of work and return its result as JSON."""
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("the child has no pipes")
    with contextlib.suppress(ConnectionError):  # the read below finds that it has ended
        child.stdin.write(msgspec.json.encode(work) + b"\n")
        await child.stdin.drain()
    while line := await child.stdout.readline():
        said = msgspec.json.decode(line, type=_ChildMessage)
        if said.failed is not None:
            raise InternalError(
                said.failed.message, code=said.failed.code, details=said.failed.details, hint=said.failed.hint
            )
        if said.end:
            return bytes(said.end)
        tell(said.done)
    raise InternalError(
        f"a worker process of a partition ended with exit status {await child.wait()}",
        code="workerProcessEnded",
        hint="it may have run out of memory: see the kernel log",
    )


async def _serve(name: str) -> None:
    """Run as the child: do one piece of work after the other until the input ends."""
    module, _, function = name.partition(":")
    work = getattr(import_module(module), function)
    collect_seldom()
    kind = _kind_of(work)
    works: asyncio.Queue[bytes] = asyncio.Queue()
    listening = asyncio.create_task(_listen(works))
    while not listening.done():
        await _worked(work, msgspec.json.decode(await works.get(), type=kind))


async def _listen(works: asyncio.Queue[bytes]) -> None:
    """Read works, also while one runs; the end of the input means that the parent is gone, so exit at once."""
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        works.put_nowait(line)
    os._exit(1)


def _kind_of(work: Work[W, E]) -> type[W]:
    """The type of its first parameter."""
    kind: type[W] = next(iter(get_type_hints(work).values()))
    return kind


async def _worked(work: Work[W, E], one: W) -> None:
    meter = _Meter()
    try:
        async with meter.telling():
            end = await work(one, meter.add)
    except RunstreamError as error:
        _say(_ChildMessage(failed=_Failed(error.message, error.code, error.hint, error.details)))
    except Exception as error:  # noqa: BLE001  the parent reports it, whatever it is
        what = f"a process that worked on a partition failed: {type(error).__name__}: {error}"
        _say(_ChildMessage(failed=_Failed(what, "workerProcessFailed", "", {})))
    else:
        _say(_ChildMessage(end=msgspec.Raw(msgspec.json.encode(end))))


class _Meter:
    """A report of progress, a few times a second."""

    def __init__(self) -> None:
        self._done = 0

    def add(self, done: int) -> None:
        self._done += done

    @contextlib.asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self._tell())
        try:
            yield
        finally:
            task.cancel()
            self._flush()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            self._flush()

    def _flush(self) -> None:
        if self._done:
            _say(_ChildMessage(done=self._done))
            self._done = 0


def _say(said: _ChildMessage) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    setup_logging("warning")
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C reaches the whole process group: the parent reports it
        uvloop.run(_serve(sys.argv[1]))
