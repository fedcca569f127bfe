"""A Runstream command as a process: its duration, and the peak memory of it and its children."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path

import psutil

RUNSTREAM = Path(sys.executable).with_name("runstream")
_LOOK_SECONDS = 0.05


@dataclass(slots=True)
class Took:
    """Time and memory of a command."""

    seconds: float = 0.0
    """From its start to its end, with all that a process needs to begin."""
    cpu_seconds: float = 0.0
    """Of it and its children."""
    mebibytes: float = 0.0
    """The most that it and its children had at one time, what they share counted once."""


async def timed(*words: str | Path, seconds: float) -> Took:
    """Run `runstream WORDS` to its end. Raises RuntimeError when it fails, TimeoutError when it takes longer."""
    return await run_timed(RUNSTREAM, *words, seconds=seconds)


async def run_timed(*words: str | Path, seconds: float) -> Took:
    """Run a command to its end. Raises RuntimeError when it fails, TimeoutError when it takes longer."""
    took = Took()
    before = _cpu_of_children()
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=PIPE)
    watching = asyncio.create_task(_watch(process.pid, took))
    try:
        async with asyncio.timeout(seconds):
            out, told = await process.communicate()
        took.seconds = time.perf_counter() - begun
    finally:
        watching.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()
    took.cpu_seconds = _cpu_of_children() - before
    if process.returncode != 0:
        raise RuntimeError(f"{words[0]} failed: {out.decode()}{told.decode()}")
    return took


def _cpu_of_children() -> float:
    """Of all that have ended; one command runs at a time."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _watch(pid: int, took: Took) -> None:
    own = psutil.Process(pid)
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
        while True:
            family = [own, *own.children(recursive=True)]
            took.mebibytes = max(took.mebibytes, sum(map(_bytes, family)) / (1 << 20))
            await asyncio.sleep(_LOOK_SECONDS)


def _bytes(process: psutil.Process) -> int:
    """The proportional set size; of a process that ends while we look, nothing."""
    with contextlib.suppress(psutil.Error):
        found: int = process.memory_full_info().pss
        return found
    return 0
