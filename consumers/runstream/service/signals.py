"""The signals that this process inherited: reset before anything relies on them.

A shell (`trap '' CHLD`), a supervisor or a container's first process may leave signals ignored or blocked, and both
survive exec. With SIGCHLD ignored, the kernel reaps each child at once: its exit code is lost, and programs such as
initdb that wait for theirs fail.
"""

from __future__ import annotations

import signal

_AWAITED = (signal.SIGCHLD, signal.SIGALRM)
"""Signals that this process or its children wait for. SIGHUP is none of them: nohup ignores it on purpose."""


def reset_signals() -> None:
    """Give inherited signals their default effect, and unblock all; main thread only."""
    for number in _AWAITED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
