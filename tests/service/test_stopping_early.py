"""`runstream stop` finds a service from its first moment, and stops no other process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runstream.errors import InternalError
from runstream.service import serve_commands
from runstream.service.data_dir import LOCK_VARIABLE, MARKER, DataDir, holder, write_holder
from runstream.service.edge import sentence
from runstream.service.serve_commands import not_started, start_detached, stop_detached
from tests.disks import take_all

HOLD = """
import fcntl, os, signal, sys
lock = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
os.pwrite(lock, sys.stdin.readline().strip().encode(), 0)
signal.pause()
"""


def test_a_service_in_the_background_is_stopped_before_it_has_read_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, data_dir = tmp_path / "settings.yml", tmp_path / "data"
    os.mkfifo(settings)
    with ThreadPoolExecutor() as threads:
        starting = threads.submit(start_detached, data_dir, ("--config", str(settings)))
        service = os.open(settings, os.O_WRONLY)  # returns once the service waits for its settings
        try:
            assert stop_detached(data_dir) == 0
            assert capsys.readouterr().out == f"the service in {data_dir} has stopped\n"
        finally:
            with contextlib.suppress(BrokenPipeError):
                os.write(service, b"unknown: 1")
            os.close(service)
            with pytest.raises(InternalError, match="the service has not started"):
                starting.result()
    assert holder(data_dir) is None


@pytest.mark.parametrize("before", ["", "the pid of another"])
def test_a_process_that_has_not_said_that_it_holds_the_directory_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    lock = tmp_path / "lock"
    other = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    lock.write_text(str(other.pid) if before else "")
    command = [sys.executable, "-c", HOLD, str(lock)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other, process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

        def say_it(_: float) -> None:
            assert process.stdin is not None
            process.stdin.write(f"{process.pid}\n")
            process.stdin.flush()
            monkeypatch.undo()

        monkeypatch.setattr("time.sleep", say_it)
        try:
            assert stop_detached(tmp_path) == 0
            assert process.wait(timeout=10) == -signal.SIGTERM
            assert other.poll() is None
        finally:
            process.kill()
            other.kill()


def test_a_process_that_never_says_that_it_holds_the_directory_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_commands, "HOLDER_SECONDS", 0)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InternalError, match="in use by a process that does not say which it is"):
            stop_detached(tmp_path)


def test_a_lock_that_was_handed_on_is_kept_and_one_of_another_directory_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, kept in (("data", True), ("other", False)):
        (tmp_path / name).mkdir()
        file = os.open(tmp_path / name / "lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(file, fcntl.LOCK_EX)
        write_holder(file, 1)
        monkeypatch.setenv(LOCK_VARIABLE, str(file))
        with DataDir.hold(tmp_path / "data"):
            assert holder(tmp_path / "data") == os.getpid()
            assert LOCK_VARIABLE not in os.environ
        assert holder(tmp_path / "data") is None
        if not kept:
            assert holder(tmp_path / "other") == 1
            os.close(file)


@pytest.mark.parametrize(
    ("written", "message", "shown"),
    [
        ("record\nerror: NATS is away\nhint: start it\n", "NATS is away", ""),
        ("error: two\n  lines\nhint: read\n", "two\n  lines", ""),
        ("error: only this\n", "only this", ""),
        ("record\nKilled\n", "it ended with exit code 3", "record\nKilled\n"),
    ],
)
def test_a_start_that_fails_gives_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, message: str, shown: str
) -> None:
    log = tmp_path / "serve.log"
    log.write_text(written)
    (tmp_path / MARKER).touch()
    with subprocess.Popen(["sh", "-c", "exit 3"], text=True) as process:
        error = not_started(process, log)
    assert error.message == f"the service has not started: {message}"
    assert error.hint.endswith(f"its log is {log}")
    assert ("hint: " in written) == (error.hint.count("; ") == 1)
    assert capsys.readouterr().err == shown


def test_a_start_on_a_full_disk_says_so_without_its_log(small_disk: Path) -> None:
    (small_disk / MARKER).touch()
    (small_disk / "serve.log").touch()
    take_all(small_disk / "ballast")
    with subprocess.Popen(["sh", "-c", "exit 1"], text=True) as process:
        error = not_started(process, small_disk / "serve.log")
    assert error.message == f"the service has not started: the disk of {small_disk} is full (0 MB left)"
    assert error.hint.startswith("free some space")


def test_numbers_of_system_errors_are_not_shown() -> None:
    error = InternalError("NATS cannot be reached: [Errno 111] Connect call failed", code="natsUnreachable")
    assert sentence(error) == "NATS cannot be reached: Connect call failed"
