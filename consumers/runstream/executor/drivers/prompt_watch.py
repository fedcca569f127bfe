"""Detection of programs that wait for keys on a terminal that never gets any: they are hung up after a while.

A program waits for keys when it has set the terminal so that reads wait, none of its processes does anything, and the
end of input (Ctrl-D) did not end it. This finds pagers, editors and questions. A program that writes, uses the
processor or sleeps is left alone. One with a socket or another terminal may wait for that, so it gets more time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import termios

NUDGES = 10
"""Number of times that a program that waits for keys gets Ctrl-D, once a second."""
IDLE_SECONDS = 20
"""Idle time after which it is then hung up, in seconds."""
CONNECTED_IDLE_SECONDS = 600
"""The same for a program that may wait for another machine, or for another terminal."""
_KILL_SECONDS = 5
_END_OF_INPUT = b"\x04"
_TERMINAL_MASTER = "ptmx"
_TIOCGSID = 0x5429
_INT = struct.Struct("i")


class PromptWatch:
    """A watch over one command's terminal, from its other side; `look` is called each second."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._nudges = 0
        self._idle = 0
        self._before: tuple[int, int, int] | None = None
        self._hung_up = 0
        """The process group that was hung up."""
        self.program = ""
        """Name of the program that was hung up because it waited for keys; empty for none."""

    def look(self, written: int) -> None:
        """Send Ctrl-D or hang the program up, if it is time; `written` is the number of bytes that the command has
        written."""
        with contextlib.suppress(OSError, termios.error):  # the terminal's other side is closed, or its queue is full
            modes = termios.tcgetattr(self._terminal)
            if not (modes[3] & termios.ICANON or modes[6][termios.VMIN] not in (0, b"\0")):
                self._nudges = self._idle = 0
            elif self._nudges < NUDGES:
                self._nudges += 1
                os.write(self._terminal, _END_OF_INPUT)
            else:
                self._watch(written)

    def _watch(self, written: int) -> None:
        group = os.tcgetpgrp(self._terminal)
        members = _members(group, _session(self._terminal))
        now = (group, written, sum(ticks for _, _, ticks in members))
        if not members or now != self._before or any(_sleeps(pid) for pid, _, _ in members):
            self._before, self._idle = now, 0
            return
        self._idle += 1
        if self._idle >= (CONNECTED_IDLE_SECONDS if any(_is_connected(pid) for pid, _, _ in members) else IDLE_SECONDS):
            self._hang_up(group, max(members)[1])

    def _hang_up(self, group: int, program: str) -> None:
        self.program = program
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            if self._hung_up == group:
                os.killpg(group, signal.SIGKILL)
            else:
                os.killpg(group, signal.SIGHUP)
                os.killpg(group, signal.SIGCONT)
        self._idle -= _KILL_SECONDS
        self._hung_up = group


def _session(terminal: int) -> int:
    session: int = _INT.unpack(fcntl.ioctl(terminal, _TIOCGSID, bytes(_INT.size)))[0]
    return session


def _members(group: int, session: int) -> list[tuple[int, str, int]]:
    """Return id, name and processor ticks of the processes in a group of the terminal, without the agent's own."""
    found = []
    for name in os.listdir("/proc") if group != session else ():  # noqa: PTH208
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    content = file.read()
            except OSError:  # it has ended
                continue
            opening, closing = content.index(b"("), content.rindex(b")")
            fields = content[closing + 2 :].split()
            if int(fields[2]) == group and int(fields[3]) == session and fields[0] != b"Z":
                command = ascii(content[opening + 1 : closing].decode(errors="replace"))[1:-1]
                found.append((int(name), command, int(fields[11]) + int(fields[12])))
    return found


def _sleeps(pid: int) -> bool:
    """Return whether a process waits for a time; True if the kernel does not show what it waits for."""
    try:
        with open(f"/proc/{pid}/wchan") as file:  # noqa: PTH123
            return "nanosleep" in file.read()
    except OSError:
        return True


def _is_connected(pid: int) -> bool:
    """Return whether a process has a socket or another terminal; True if that cannot be read."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
        targets = [os.readlink(f"/proc/{pid}/fd/{name}") for name in names]  # noqa: PTH115
    except OSError:
        return True
    return any(target.startswith("socket:") or target.endswith(_TERMINAL_MASTER) for target in targets)
