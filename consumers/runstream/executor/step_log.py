"""What a step writes: to a file on the executor, which becomes the stored log, and to the live log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from runstream.executor.masking import Masker
from runstream.steplogs.live import LiveLog

log = structlog.get_logger()


def _nobody() -> None:
    """Nobody waits for output."""


class StepLog:
    """The log of one step while it runs. Writing never fails the step."""

    def __init__(self, path: Path, live: LiveLog | None, secrets: frozenset[str] = frozenset(), limit: int = 0) -> None:
        """Nothing of `secrets` is written, and of the output at most `limit` bytes; 0 for no limit."""
        self._path = path
        self._masker = Masker(secrets)
        self._live = live
        self._room = limit or sys.maxsize
        self._limit = limit
        self.heard: Callable[[], None] = _nobody
        """Called for all output that is not ours."""
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def hide(self, secrets: frozenset[str]) -> None:
        """From now on these are not written."""
        self._show(self._masker.end())
        self._masker = Masker(secrets)

    def write(self, chunk: bytes) -> None:
        """More output."""
        self.heard()
        if self._room > 0:
            kept = chunk[: self._room]
            self._room -= len(kept)
            self._show(self._masker.feed(kept))
            if self._room == 0:
                self.line(f"\nThe log ends here: it has {self._limit} bytes, the limit (executor.step_log_bytes).")

    def _show(self, chunk: bytes) -> None:
        if self._file is None or not chunk:
            return
        try:
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            log.warning(
                f"the log {self._path} ends here, it cannot be written: {error}",
                action="step_log_not_written",
                path=str(self._path),
            )
            self._close()
            return
        if self._live is not None:
            self._live.write(chunk)

    def line(self, text: str) -> None:
        """A line of ours."""
        self._show(self._masker.feed(f"{text}\n".encode()))

    def close(self) -> None:
        """The log is complete; a second close does nothing."""
        self._show(self._masker.end())
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._live is not None:
            self._live.end()
