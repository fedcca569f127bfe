"""When runs are to be looked at because time has passed: the end of a wait for an attempt, or of a run's time.

Kept in memory, and made anew from the state of the runs whenever that is loaded, so nothing is ever lost.
"""

from __future__ import annotations

import heapq
from datetime import datetime


class Wakes:
    """One time for each run that waits for one."""

    def __init__(self) -> None:
        self._at: dict[str, datetime] = {}
        self._heap: list[tuple[datetime, str]] = []
        """In order; an entry that `_at` does not confirm is left over."""

    def set(self, run_id: str, at: datetime | None) -> None:
        """Look at the run at this time and at no other; None for never."""
        if at == self._at.get(run_id):
            return
        if at is None:
            del self._at[run_id]
        else:
            self._at[run_id] = at
            heapq.heappush(self._heap, (at, run_id))
        if len(self._heap) > 2 * len(self._at) + 16:
            self._heap = [(time, run) for run, time in self._at.items()]
            heapq.heapify(self._heap)

    def take(self, at: datetime) -> list[str]:
        """The runs whose time has come; each is given once."""
        due = []
        while (first := self.first) is not None and first <= at:
            _, run_id = heapq.heappop(self._heap)
            del self._at[run_id]
            due.append(run_id)
        return due

    @property
    def first(self) -> datetime | None:
        """The earliest time; None when no run waits for any."""
        while self._heap:
            at, run_id = self._heap[0]
            if self._at.get(run_id) == at:
                return at
            heapq.heappop(self._heap)
        return None
