"""A service in the background: started until it serves, and stopped until nothing of it is left."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from runstream.cli.connection import us_command
from runstream.errors import InternalError
from runstream.service.data_dir import RECORDS, holder, make_folder

STOP_SECONDS = 15
"""How long a stop may take before this is an error: longer than the service gives itself."""
_TOLD = 20
"""How many lines of its records are shown when it does not start."""


def start_detached(data_dir: Path, arguments: Iterable[str]) -> int:
    """Start `runstream serve` in the background, with its records in `serve.log`; returns when it serves.

    One that serves from this directory already is left as it is. Raises InternalError when it does not start.
    """
    pid = holder(data_dir)
    if pid is not None:
        sys.stdout.write(f"a service is already running in {data_dir} (process {pid})\n")
        return 0
    make_folder(data_dir)
    records = data_dir / RECORDS
    if records.exists():
        records.replace(f"{records}.1")
    command = [sys.executable, *_program(sys.argv[0]), "--data-dir", str(data_dir), "serve", *arguments]
    with (  # appended to, so that a program that rotates logs may truncate it
        records.open("ab") as stderr,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True, text=True
        ) as process,
    ):
        lines = _ready_lines(process)
        if not lines:
            raise _not_started(process, records)
        process.returncode = 0  # it goes on without us: nothing is to wait for it
    sys.stdout.write("".join(lines))
    sys.stdout.write(f"  stop      {us_command()} stop\n  log       {records}\n")
    return 0


def _program(called: str) -> list[str]:
    """Return this program as it was called, so that the commands which the service prints can be pasted."""
    return [called] if Path(called).name == "runstream" and Path(called).is_file() else ["-m", "runstream.service"]


def _ready_lines(process: subprocess.Popen[str]) -> list[str]:
    """What it says when it serves, without how to stop it; nothing when it ended instead."""
    lines: list[str] = []
    if process.stdout is not None:
        for line in process.stdout:
            if line.strip().startswith("stop"):
                return lines
            lines.append(line)
    return []


def _not_started(process: subprocess.Popen[str], records: Path) -> InternalError:
    code = process.wait()
    told = records.read_text(errors="replace").splitlines()[-_TOLD:]
    sys.stderr.write("\n".join([*told, ""]))
    return InternalError(
        f"the service has not started: it ended with exit code {code}",
        code="serviceNotStarted",
        hint=f"its records are in {records}",
    )


def stop_detached(data_dir: Path) -> int:
    """Stop the service of a data directory, and wait until all of it has ended."""
    pid = holder(data_dir)
    if not pid:
        sys.stdout.write(f"no service is running in {data_dir}\n")
        return 0
    os.kill(pid, signal.SIGTERM)
    _wait_until_free(data_dir, pid)
    sys.stdout.write(f"the service in {data_dir} has stopped\n")
    return 0


def _wait_until_free(data_dir: Path, pid: int) -> None:
    """The lock of the directory is free once its process has ended."""
    previous = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(STOP_SECONDS)
    lock = os.open(data_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
    except TimeoutError as error:
        raise InternalError(
            f"process {pid} has not stopped within {STOP_SECONDS} seconds",
            code="serviceNotStopped",
            hint=f"see what it does, or end it with: kill -9 {pid}",
        ) from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        os.close(lock)


def _too_long(_number: int, _frame: object) -> None:
    raise TimeoutError
