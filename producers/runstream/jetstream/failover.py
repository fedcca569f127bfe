"""When a connection leaves its server for another one of the cluster.

A node that is cut off from its peers keeps its clients. Their appends and heartbeats get no answer for as long as the
cut lasts, while the rest of the cluster has elected other leaders. So an unanswered request counts, each kind by
itself: the node may still answer for the streams that it believes to lead. What a node without peers can never do is
to store something that has replicas. So a server through which other things are stored is not cut off: one of its
streams elects a leader, and that is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LEAVE_SECONDS = 3.0
"""How long a stream may be silent, or without a leader, before the server is left."""
_CLOCK_SECONDS = 0.05
"""How far two clocks may differ in what they call three seconds."""
ELECTION_SECONDS = 10.0
"""How long it may be where other things are stored."""
STORED_SECONDS = 2.0
"""How recently something must have been stored for that: processes renew a lease each second."""


class Answers:
    """What is answered, and what is not, over one connection."""

    def __init__(self, leave: Callable[[str], None] = lambda _: None, clock: Callable[[], float] = time.monotonic):
        """`leave` is called with the reason."""
        self._leave = leave
        self._clock = clock
        self._silent: dict[str, tuple[float, float]] = {}
        """Since when each kind of request gets no answer, and when one was last missed."""
        self._not_before = 0.0
        self._stored_at = float("-inf")
        self.full = ""
        """Why the store took no more, the last time that something was to be stored; empty when it was stored."""

    def stored(self) -> None:
        """Note that something was stored."""
        self.full = ""
        self._stored_at = self._clock()

    def answered(self, what: str) -> None:
        """Note an answer, whatever it says."""
        self._silent.pop(what, None)

    def doubtful(self, what: str, why: str) -> None:
        """Note an answer that is none where one was missed before: that something else is under way."""
        if what in self._silent:
            self.unanswered(what, 0.0, why)

    def unanswered(self, what: str, waited: float, why: str) -> None:
        """Note that there was no answer within `waited` seconds, or that the stream has no leader now."""
        now = self._clock()
        begun = now - waited
        since, last = self._silent.get(what, (begun, begun))
        if begun - last > LEAVE_SECONDS:
            since = begun  # There were no requests in between: the earlier silence says nothing about now.
        self._silent[what] = (since, now)
        patience = ELECTION_SECONDS if now - self._stored_at < STORED_SECONDS else LEAVE_SECONDS
        if now - since >= patience - _CLOCK_SECONDS and now >= self._not_before:
            self._silent.clear()
            self._not_before = now + LEAVE_SECONDS
            self._leave(f"{what} is not answered: {why}")

    def connected(self) -> None:
        """Begin anew at another server."""
        self._silent.clear()
        self._stored_at = float("-inf")


_UNHEEDED = Answers()


def answers_of(connection: object) -> Answers:
    """Return the answers of a connection made by `nats_connection`; for any other, some that nothing heeds."""
    found = getattr(connection, "answers", None)
    return found if isinstance(found, Answers) else _UNHEEDED
