"""Launch a server that ends with its parent. This script replaces itself by the command that it is given.

    launch.py PARENT_PID DEATH_SIGNAL USER COMMAND ARGUMENT…

The server gets DEATH_SIGNAL when the parent dies (0 for none; only on Linux). USER is the user to run as, or `-`.
It is a script, because code between fork and exec is not safe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, death_signal: int, user: str, command: list[str]) -> None:
    """Replace the process by the command, or exit. Never returns."""
    # Terminals, supervisors and shells may leave signals ignored, and an ignored signal stays ignored through exec.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if user != "-":
        become(user)
    # After the change of user, which would clear the death signal.
    if death_signal and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the process that started this server has ended")
    os.execv(command[0], command)  # noqa: S606 - an argument list, without a shell


def become(user: str) -> None:
    """Switch from root to this user, with no groups but the user's own."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ["HOME"] = "/"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
