"""File descriptors that run out: the nth one that a process asks for, or all but a few."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import re
import resource
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from runstream.executor import beneath, task_root

OPENING: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("open", "pipe", "pidfd_open", "dup", "openpty", "memfd_create", "listdir", "scandir")),
    *((socket, name) for name in ("socketpair", "recv_fds")),
    *((builtins, "open"), (io, "open"), (beneath, "open_beneath"), (task_root, "open_beneath")),
)
"""The functions that make descriptors in the executor and the object storage."""


@contextlib.contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Leave this process so many descriptors to open; the kernel refuses any further one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    last = max(int(link.name) for link in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(min(count, len(held))):
            os.close(held.pop())
        missing = count - min(count, len(held) + count)
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] + missing, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


Place = tuple[str, ...]
"""A call that makes a descriptor, with the calls of Runstream that lead to it."""


class Opening:
    """The calls that make descriptors, of which the first one at a chosen place finds none."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.places: dict[Place, None] = {}
        """All places that were met, in order."""
        self.refused: Place | None = None
        for module, name in OPENING:
            patch.setattr(module, name, self._watched(name, getattr(module, name)))

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            place = _place(name)
            if len(place) > 1:
                self.places[place] = None
            if place != self.refused:
                return function(*args, **kwargs)
            self.refused = None
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
            try:
                return function(*args, **kwargs)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        return call


def _place(name: str) -> Place:
    found = [name]
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  what leads to the call
    while frame is not None:
        if f"{os.sep}runstream{os.sep}" in frame.f_code.co_filename:
            found.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return tuple(found)


def descriptors() -> Counter[str]:
    """Count the descriptors of this process by their targets, without the numbers in these."""
    found = Counter[str]()
    for link in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # that of the list itself
            found[re.sub(r"[0-9a-f-]{36}|\d+", "N", str(link.readlink()))] += 1
    return found
