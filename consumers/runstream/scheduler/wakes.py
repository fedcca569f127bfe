"""When runs are to be looked at because time has passed: the end of a wait for an attempt, or of a run's time.

Kept in memory, and made anew from the state of the runs whenever that is loaded, so nothing is ever lost.
"""

from __future__ import annotations

from datetime import datetime

from runstream.scheduler.ranking import Ranking


class Wakes:
    """One time for each run that waits for one."""

    def __init__(self) -> None:
        self._times: Ranking[datetime] = Ranking()

    def set(self, run_id: str, at: datetime | None) -> None:
        """Look at the run at this time and at no other; None for never."""
        self._times.set(run_id, at)

    def take(self, at: datetime) -> list[str]:
        """The runs whose time has come; each is given once."""
        due = []
        while (first := self._times.first) is not None and first[0] <= at:
            self._times.set(first[1], None)
            due.append(first[1])
        return due

    @property
    def first(self) -> datetime | None:
        """The earliest time; None when no run waits for any."""
        first = self._times.first
        return None if first is None else first[0]
