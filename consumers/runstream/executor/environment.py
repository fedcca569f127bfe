"""Which environment a task's processes get (rules step-8 and step-10).

Of the executor's own environment only a short list is handed on, and what a setting names: never its tokens and URLs,
its package sources or proxies, its own Python. A later layer wins over an earlier one.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from runstream.executor.process_tree import MARK

_INHERITED = frozenset({"PATH", "LANG", "LANGUAGE", "TZ"})
_INHERITED_PREFIX = "LC_"
_TERMINAL = "xterm-256color"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FALLBACK_LOCALE = "C.UTF-8"


def inherited(environment: Mapping[str, str], patterns: Sequence[str] = (), own: Path | None = None) -> dict[str, str]:
    """Return what a host task gets of the executor's environment: a short list, and what the patterns name.

    `own` is the virtual environment that the service runs in: its programs are not the task's.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name in _INHERITED
        or name.startswith(_INHERITED_PREFIX)
        or any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    folders = [folder for folder in kept.get("PATH", "").split(":") if folder and not _lies_in(folder, own)]
    kept["PATH"] = ":".join(folders) or _DEFAULT_PATH
    if not kept.keys() & {"LANG", "LC_ALL", "LC_CTYPE"}:
        kept["LANG"] = _FALLBACK_LOCALE
    return kept


def own_virtual_environment() -> Path | None:
    """Return the virtual environment of this process, if it runs in one."""
    return Path(sys.prefix) if sys.prefix != sys.base_prefix else None


def _lies_in(folder: str, own: Path | None) -> bool:
    if own is None:
        return False
    return any(own in (path, *path.parents) for path in (Path(folder), Path(folder).resolve()))


def for_terminal(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command that has a terminal."""
    return {"TERM": _TERMINAL, **environment}


_CREDENTIALS = ("SSHPRIVKEY", "SSHHOSTKEY", "GIT_USERNAME", "GIT_PASSWORD")
_OF_GIT = frozenset(
    f"{prefix}_{name}" for prefix in ("AGOLA", "RUNSTREAM") for name in ("GIT_USERNAME", "GIT_PASSWORD")
)
_PRIVATE_KEYS = frozenset({"AGOLA_SSHPRIVKEY", "RUNSTREAM_SSHPRIVKEY"})


def task_environment(
    own: Mapping[str, str], static: Mapping[str, str], of_run: Mapping[str, str], counter: int, attempt: int
) -> dict[str, str]:
    """The task's environment: its own, then the static one, the run's, and the numbers of the run and of the attempt.

    Each name that begins with AGOLA_ is also given as RUNSTREAM_, unless that is set itself. A task may bring the
    credentials for git that its project does not have, under either name.
    """
    numbers = {"RUN_COUNTER": str(counter), "TASK_ATTEMPT": str(attempt)}
    ours = {f"{prefix}_{name}": number for name, number in numbers.items() for prefix in ("AGOLA", "RUNSTREAM")}
    credentials = {name: own.get(f"AGOLA_{name}") or own.get(f"RUNSTREAM_{name}") for name in _CREDENTIALS}
    given = {
        f"{prefix}_{name}": text for name, text in credentials.items() if text for prefix in ("AGOLA", "RUNSTREAM")
    }
    projects = {name: text for name, text in static.items() if text or name not in given}
    merged = {**own, **given, **projects, **of_run, **ours}
    twins = {f"RUNSTREAM_{name[6:]}": value for name, value in merged.items() if name.startswith("AGOLA_")}
    return {**twins, **merged}


def for_steps(environment: Mapping[str, str], secrets: Container[str]) -> dict[str, str]:
    """Return the task's environment without the credentials for git, which are the clone step's alone.

    A private key that is no secret stays: its variable is one that every task has.
    """
    return {
        name: "" if name in _PRIVATE_KEYS and text in secrets else text
        for name, text in environment.items()
        if name not in _OF_GIT
    }


def placed(home: str, tmp: str, user: str) -> dict[str, str]:
    """Return what belongs to the task's place: its home, its temporary folder, its user and shell."""
    return {"HOME": home, "TMPDIR": tmp, "USER": user, "LOGNAME": user, "SHELL": "/bin/sh"}


def marked(environment: Mapping[str, str], mark: str) -> dict[str, str]:
    """The environment with the mark by which the task's processes are found; nothing can replace it."""
    return {**environment, MARK: mark}
