"""The time of the log's server, kept by this process's monotonic clock.

All decisions take their times from one clock, whichever process makes them: a run that one scheduler started is timed
out, or tried again, by another one on another machine. A wall clock that is wrong or is set changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

FORGET_SECONDS = 60.0
"""Validity of a reading: after it an earlier time may replace the reading, in case the server's clock was set back."""


class LogClock:
    """A callable clock in UTC; it returns the wall clock's time until the first reading."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        """Both clocks return seconds."""
        self._monotonic = monotonic
        self._wall = wall
        self._ahead: float | None = None
        """Offset of the server's clock from the monotonic one, by the reading that arrived fastest."""
        self._read_at = 0.0

    def read(self, stored: float) -> None:
        """Take a reading: the server stored a message at this time (seconds since 1970), and it has just arrived.

        A message that was in flight for long reads as an earlier time, so the latest of the recent readings counts.
        """
        now = self._monotonic()
        ahead = stored - now
        if self._ahead is None or ahead >= self._ahead or now - self._read_at > FORGET_SECONDS:
            self._ahead, self._read_at = ahead, now

    def __call__(self) -> datetime:
        """Return the time now."""
        seconds = self._wall() if self._ahead is None else self._monotonic() + self._ahead
        return datetime.fromtimestamp(seconds, UTC)
