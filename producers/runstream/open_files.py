"""The limit of open files of this process: raised at its start, and reported by name when it is reached.

A process that has reached it cannot accept a connection, start a program or open a log. That passes by itself once
other work has closed its files, so nothing that meets it may end a component or keep what it had opened.
"""

from __future__ import annotations

import errno
import os
import resource

from runstream.errors import InternalError, causes

OPEN_FILES = 65_536
"""The limit of open files that we ask for. Not more: a child that closes all possible files would take seconds."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})
FILES_OF_A_TASK = 8
"""Descriptors that an executor needs for one running task."""
_RESERVE = 64
"""Descriptors to leave free for connections and files of the service itself; at most a quarter of the limit."""
_FOLDER = "/proc/self/fd"


class OpenFilesError(InternalError):
    """This process, or the system, has no file descriptor left."""

    def __init__(self, component: str = "executor") -> None:
        super().__init__(
            f"{component}: {too_many_open_files()}",
            code="tooManyOpenFiles",
        )


def too_many_open_files() -> str:
    """Return the sentence about the limit, with the way out."""
    return f"too many open files (limit {open_files_limit()}; raise LimitNOFILE)"


def out_of_files(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, is a missing file descriptor."""
    return any(
        isinstance(cause, OpenFilesError) or (isinstance(cause, OSError) and cause.errno in _EXHAUSTED)
        for cause in causes(error)
    )


def open_files_limit() -> int:
    """Return the limit of open files of this process."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_open_files() -> None:
    """Raise this process's limit of open files up to OPEN_FILES: the usual 1,024 allow few connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_within(most: int) -> int:
    """Return `most`, but at most half of the files that this process may open."""
    soft = open_files_limit()
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, soft // 2))


def spare_files() -> int:
    """Return how many files this process can open for new tasks: those left, without a reserve; negative if it has
    less than that."""
    limit = open_files_limit()
    if limit == resource.RLIM_INFINITY:
        return OPEN_FILES
    try:
        used = len(os.listdir(_FOLDER))  # noqa: PTH208
    except OSError as error:
        if not out_of_files(error):
            raise
        used = limit
    return limit - used - min(_RESERVE, limit // 4)
