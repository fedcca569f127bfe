"""How a command gets its environment in a container: the cluster's API has no place for one.

A shell of the container reads it, with the command, as a script from its input. So neither a list of processes nor the
API server's audit log shows it. The input of a command with a terminal is the terminal, which would print what it
reads. There the script is a file, which is emptied before the command begins, as it is for a command with an input.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from runstream.executor.drivers.shell import SHELL

FROM_INPUT = (SHELL, "-s")
"""The command that reads a script from its input."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "OPTIND", "PPID", "SHELLOPTS", "UID"})
"""Variables that a shell does not let be set."""


def input_script(arguments: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """Return the script that becomes the command, which gets no input."""
    return f"{_exports(environment)}exec {shlex.join(arguments)} </dev/null\n".encode()


def file_script(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the script for a file that is emptied before it becomes the command.

    A shell reads a group of commands to its end before it runs the first of them.
    """
    return f'{{ : >"$0"\n{_exports(environment)}exec {shlex.join(arguments)}; }}\n'


def _exports(environment: Mapping[str, str]) -> str:
    return "".join(
        f"export {name}={shlex.quote(value)}\n"
        for name, value in environment.items()
        if _NAME.fullmatch(name) and name not in _OWN
    )
