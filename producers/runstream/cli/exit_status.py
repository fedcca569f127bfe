"""What the exit status of a command says, by the conventions of shells."""

from __future__ import annotations

import signal

_OF_SHELLS = {
    126: "the command cannot be executed",
    127: "a command was not found",
}
_KILLED = {
    signal.SIGKILL: "killed: SIGKILL, often for lack of memory",
    signal.SIGXFSZ: "SIGXFSZ: a file became larger than it may be",
}
_FIRST_SIGNAL_STATUS = 128


def described_status(status: int) -> str:
    """Return `exit status N`, and in brackets what stands for a signal or is the shell's own word."""
    meaning = _OF_SHELLS.get(status, "")
    if status > _FIRST_SIGNAL_STATUS:
        try:
            number = signal.Signals(status - _FIRST_SIGNAL_STATUS)
        except ValueError:  # some other number that the command chose
            meaning = ""
        else:
            meaning = _KILLED.get(number, number.name)
    return f"exit status {status} ({meaning})" if meaning else f"exit status {status}"
