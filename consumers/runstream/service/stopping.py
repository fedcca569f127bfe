"""How a process is told to stop: the first SIGTERM or SIGINT asks, the second one insists."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import structlog

log = structlog.get_logger()
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody wants this process to stop, and how urgently."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        self.serving = False
        """Whether the process has started and waits for the request itself."""

    def on_signal(self, number: signal.Signals) -> None:
        """Take a signal."""
        if self.asked.is_set():
            log.warning("stopping at once", action="stop_forced", signal=number.name)
            self.insisted.set()
            return
        log.info("stopping; a second signal stops at once", action="stop_asked", signal=number.name)
        self.asked.set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take the signals of this process while the block lasts. In its main thread."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.on_signal, number)
        try:
            yield self
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
