"""`runstream serve` and `runstream stop`: run the service in the foreground or in the background, and stop it.

`serve --detach` returns once the service serves; `stop` returns once all of its processes have ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import uvloop

from runstream.cli.config_inputs import Flag, find_config
from runstream.cli.connection import with_program
from runstream.errors import InternalError
from runstream.garbage import collect_seldom
from runstream.service.configuration import ServeOptions, settings_of
from runstream.service.data_dir import (
    LOCK_VARIABLE,
    MARKER,
    RECORDS,
    DataDir,
    holder,
    locked,
    needed_bytes,
    without_trace,
    write_holder,
)
from runstream.settings import Settings

if TYPE_CHECKING:
    from runstream.service.wiring import Parts

STOP_SECONDS = 15
"""Bound of `runstream stop`, in seconds: longer than the service gives itself."""
HOLDER_SECONDS = 2.0
"""Bound, in seconds, between taking the lock and writing the pid into it."""
_LOOK_AGAIN_SECONDS = 0.01
_FULL_BYTES = 1 << 20
"""A disk with less space left may have taken no log."""
_SHOWN_LINES = 20
"""Number of lines of its log that are shown when it does not start."""


def start_detached(data_dir: Path, arguments: Iterable[str]) -> int:
    """Start `runstream serve` in the background, logging to `serve.log`; return when it serves.

    A service that already runs in this directory stays as it is. Raise InternalError when it does not start.
    """
    pid = holder(data_dir)
    if pid is not None:
        sys.stdout.write(f"a service is already running in {data_dir} (process {pid})\n")
        return 0
    records = data_dir / RECORDS
    with without_trace(data_dir), _started(data_dir, records, arguments) as process:
        lines = _ready_lines(process)
        if not lines:
            raise not_started(process, records)
        process.returncode = 0  # it outlives us; without this, Popen warns
    sys.stdout.write("".join(lines))
    sys.stdout.write(f"  stop      {with_program('runstream stop')}\n  log       {records}\n")
    return 0


def _started(data_dir: Path, records: Path, arguments: Iterable[str]) -> subprocess.Popen[str]:
    """Start the service with the directory's lock already held, so that a stop finds it while it starts."""
    command = [sys.executable, *_program(sys.argv[0]), "--data-dir", str(data_dir), "serve", *arguments]
    with locked(data_dir) as lock:
        if records.exists():
            records.replace(f"{records}.1")
        with records.open("ab") as stderr:  # appended to, so that a program that rotates logs may truncate it
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                text=True,
                pass_fds=(lock,),
                env={**os.environ, LOCK_VARIABLE: str(lock)},
            )
        write_holder(lock, process.pid)
        return process


def _program(called: str) -> list[str]:
    """Return this program as it was called, so that the commands which the service prints can be pasted."""
    return [called] if Path(called).name == "runstream" and Path(called).is_file() else ["-m", "runstream.service"]


def _ready_lines(process: subprocess.Popen[str]) -> list[str]:
    """Return the lines that it prints when it serves, without the last; empty when it ended instead."""
    lines: list[str] = []
    if process.stdout is not None:
        for line in process.stdout:
            if line.strip().startswith("stop"):
                return lines
            lines.append(line)
    return []


def not_started(process: subprocess.Popen[str], records: Path) -> InternalError:
    """Return the error with which the service ended; where its log has none, show the end of the log."""
    code = process.wait()
    tail = records.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
    errors = [number for number, line in enumerate(tail) if line.startswith("error: ")]
    if errors:
        end = next((n for n in range(errors[-1], len(tail)) if tail[n].startswith("hint: ")), len(tail))
        reason = "\n".join(tail[errors[-1] : end]).removeprefix("error: ")
        hints = [line.removeprefix("hint: ") for line in tail[end : end + 1]]
    else:
        sys.stderr.write("\n".join([*tail, ""]))
        reason, hints = f"it ended with exit code {code}", []
        left = shutil.disk_usage(records.parent).free
        if left < _FULL_BYTES:  # the log lacks the reason, too
            reason = f"the disk of {records.parent} is full ({left >> 20} MB left)"
            hints = ["free some space, or give a folder on another disk with --data-dir"]
    if (records.parent / MARKER).exists():  # else the log is removed with the new folder
        hints.append(f"its log is {records}")
    return InternalError(
        f"the service has not started: {reason}",
        code="serviceNotStarted",
        hint="; ".join(hints),
    )


def stop_detached(data_dir: Path) -> int:
    """Stop the service of a data directory, and wait until all of it has ended."""
    pid = _holder_of(data_dir)
    if pid is None:
        sys.stdout.write(f"no service is running in {data_dir}\n")
        return 0
    with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
        os.kill(pid, signal.SIGTERM)
    _wait_until_free(data_dir, pid)
    sys.stdout.write(f"the service in {data_dir} has stopped\n")
    return 0


def _holder_of(data_dir: Path) -> int | None:
    """Return the process that holds the directory, once its pid is in the lock; None if no process does.

    Between a lock and the pid in it are microseconds of the process that takes it. Until then the file has the pid of
    an earlier process, which may be another program's by now: it must not be stopped.
    """
    deadline = time.monotonic() + HOLDER_SECONDS
    while (pid := holder(data_dir)) is not None and not _has_lock_open(data_dir, pid):
        if time.monotonic() > deadline:
            raise InternalError(
                f"the data directory {data_dir} is in use by a process that does not say which it is",
                code="serviceNotStopped",
                hint=f"see which one it is: fuser {data_dir / 'lock'}",
            )
        time.sleep(_LOOK_AGAIN_SECONDS)
    return pid


def _has_lock_open(data_dir: Path, pid: int) -> bool:
    """Return whether a process has the directory's lock open. False for one that has ended, or is not this user's."""
    try:
        return any(file.path == str(data_dir / "lock") for file in psutil.Process(pid).open_files())
    except psutil.Error:
        return False


def _wait_until_free(data_dir: Path, pid: int) -> None:
    """Wait until the lock of the directory is free, which it is once its process has ended."""
    previous = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(STOP_SECONDS)
    lock = os.open(data_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
    except TimeoutError as error:
        raise InternalError(
            f"process {pid} has not stopped within {STOP_SECONDS} seconds",
            code="serviceNotStopped",
            hint=f"look at its log, or end it with: kill -9 {pid}",
        ) from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        os.close(lock)


def _too_long(_number: int, _frame: object) -> None:
    raise TimeoutError


def serve_command(*, detach: Flag = False, options: ServeOptions | None = None) -> int:
    """Run the service: everything on this machine, or some of its parts.

    With no options, NATS and Postgres are started in the data directory. Each option can also be given as
    RUNSTREAM_NAME (RUNSTREAM_NATS_URL) in the environment or
    as a line of a settings file (nats_url: …).

    Parameters
    ----------
    detach
        Run in the background: return once the service is ready. `runstream stop` stops it.
    """
    settings = settings_of(options)
    if detach:
        after = sys.argv[sys.argv.index("serve") + 1 :]
        return start_detached(settings.data_dir, [argument for argument in after if argument != "--detach"])
    in_background = LOCK_VARIABLE in os.environ
    with DataDir.starting(settings.data_dir, needed_bytes(settings)) as data_dir:
        # Importing takes a second; `runstream stop` finds the process by its lock meanwhile.
        from runstream.service.serve import serve

        collect_seldom()
        uvloop.run(serve(settings, data_dir, report_ready))
    if not in_background:
        with contextlib.suppress(OSError):  # the reader of the output has left
            os.write(1, f"the service in {settings.data_dir} has stopped\n".encode())
    return 0


def stop_command() -> int:
    """Stop the service of this data directory, and wait until all of it has ended."""
    return stop_detached(settings_of().data_dir)


def report_ready(settings: Settings, parts: Parts, login_link: str = "") -> None:
    """Print where the service is and what to do next; `login_link` logs the administrator in."""
    lines = [f"runstream serves {', '.join(settings.components)} at {parts.web.url}"]
    if parts.gateway:
        configured = find_config(Path.cwd()) is not None
        first = "runstream run create --follow" if configured else "runstream init"
        lines += [
            f"  data      {settings.data_dir}",
            f"  {'try  ' if configured else 'begin'}     {with_program(first)}",
            f"  look      {with_program('runstream run list')}",
            f"  check     {with_program('runstream doctor')}",
        ]
    if login_link:
        lines.append(f"  log in    {login_link} (once, within 5 minutes)")
    for executor in parts.executors:
        if lack := executor.sandbox_problem:
            without = f"tasks run WITHOUT a sandbox ({lack}): they can do all that this user can"
            lines.append(f"  WARNING   {f'tasks are {lack}' if lack.startswith('refused') else without}")
    lines.append("  stop      Ctrl-C")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
