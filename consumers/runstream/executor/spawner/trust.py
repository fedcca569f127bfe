"""The time up to which agents let tasks run, although they hear nothing from the executor.

An executor that stands still (stopped by a signal, swapped out, hung) cannot end its tasks when it may no longer trust
its lease. So their agents do it, before a scheduler can declare the executor lost.

The time, by the monotonic clock of the machine, is the content of a file in memory, which all agents inherit. So a
renewal costs the executor one system call, however many agents there are. An agent wakes up at the time that it has
read, and only then reads the file again.
"""

from __future__ import annotations

import os
import struct

_TIME = struct.Struct("d")


def new_trust() -> int:
    """Return the descriptor of a new file in memory."""
    return os.memfd_create("runstream-trust", os.MFD_CLOEXEC)


def write_trust(descriptor: int, until: float) -> None:
    """Replace the time."""
    os.pwrite(descriptor, _TIME.pack(until), 0)


def read_trust(descriptor: int) -> float:
    """Return the time."""
    before = os.pread(descriptor, _TIME.size, 0)
    while (found := os.pread(descriptor, _TIME.size, 0)) != before:  # a write was half done
        before = found
    return float(_TIME.unpack(found)[0])
