"""How a process is told to stop: the first SIGTERM, SIGINT or SIGHUP asks, the second one insists."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import structlog

log = structlog.get_logger()
STOP_SECONDS = 9.5
"""All that a stop may take, from the first signal to the end of the last server."""


class StopRequest:
    """Whether somebody wants this process to stop, and how urgently."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        self._asked_at: float | None = None
        self.serving = False
        """Whether the process has started and waits for the request itself."""

    def stopped_by_itself(self) -> None:
        """Forget how long a stop took that was not asked for: the process goes on."""
        self.serving = False
        if not self.asked.is_set():
            self._asked_at = None

    def remaining(self, least: float) -> float:
        """Seconds that are left for stopping, but at least these; all of them when nobody has asked."""
        if self._asked_at is None:
            self._asked_at = asyncio.get_running_loop().time()
        return max(least, self._asked_at + STOP_SECONDS - asyncio.get_running_loop().time())

    def on_signal(self, number: signal.Signals) -> None:
        """Take a signal."""
        if self.asked.is_set():
            log.warning("stopping at once", action="stop_forced", signal=number.name)
            self.insisted.set()
            return
        log.info("stopping; a second signal stops at once", action="stop_asked", signal=number.name)
        self._asked_at = asyncio.get_running_loop().time()
        self.asked.set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take the signals of this process while the block lasts. In its main thread."""
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means: go on without the terminal
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self.on_signal, number)
        try:
            yield self
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
