"""Become a server that ends with its parent: run as a script, it replaces itself by the command it is given.

    launch.py PARENT_PID DEATH_SIGNAL USER COMMAND ARGUMENT…

DEATH_SIGNAL is what the server gets when the parent dies (0: nothing; Linux alone can do it). USER is whom to run as,
or `-`. A script of its own, because code between fork and exec is not safe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, death_signal: int, user: str, command: list[str]) -> None:
    """Never returns: the process becomes the command, or ends."""
    # Terminals, supervisors and shells may leave signals ignored, and an ignored signal stays so through exec.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if user != "-":
        become(user)
    # After the change of user, which would clear it.
    if death_signal and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the process that wanted this server has ended")
    os.execv(command[0], command)  # noqa: S606 - an argument list, without a shell


def become(user: str) -> None:
    """Give up root for this user, with no groups but the user's own."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ["HOME"] = "/"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
