"""The decision of a connection to leave its server for another one of the cluster.

A node that is cut off from its peers keeps its clients. Their appends and heartbeats get no answer while the cut lasts,
although the rest of the cluster has elected other leaders. So unanswered requests count, for each kind separately: the
node may still answer for streams that it believes to lead. A node without peers can never store a replicated message.
So a server that stores other messages is not cut off: one of its streams is electing a leader, which takes a while.

A reader asks nothing while it waits, and a node without peers goes on sending the heartbeats of its consumer. So a
connection through which nothing is stored asks for one of the streams that its readers wait for, each in turn. A node
that led the stream before the cut answers this, too: it says how long it has not heard of its peers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LEAVE_SECONDS = 3.0
"""Silence of a stream, or time without a leader, after which the connection leaves the server, in seconds."""
_CLOCK_SECONDS = 0.05
"""Tolerance between two clocks that measure three seconds."""
ELECTION_SECONDS = 10.0
"""The same while the server stores other messages."""
STORED_SECONDS = 2.0
"""Maximum age of the last stored message for that; processes renew a lease each second."""


class Answers:
    """The answered and unanswered requests of one connection."""

    def __init__(self, leave: Callable[[str], None] = lambda _: None, clock: Callable[[], float] = time.monotonic):
        """`leave` is called with the reason."""
        self._leave = leave
        self._clock = clock
        self._silent: dict[str, tuple[float, float]] = {}
        """Times of the first and the last unanswered request of each kind."""
        self._awaited: dict[str, None] = {}
        """Streams whose readers have waited since they were last asked for, in that order."""
        self._not_before = 0.0
        self._stored_at = float("-inf")
        self.folder: Path | None = None
        """The folder of the server's store, if it is on this machine."""
        self.full = ""
        """The store's reason to refuse the last message; empty if it was stored."""

    def stored(self) -> None:
        """Note that a message was stored."""
        self.full = ""
        self._stored_at = self._clock()

    def awaited(self, stream: str) -> None:
        """Note that a reader of this stream waits and hears heartbeats alone."""
        self._awaited[stream] = None

    def to_ask(self) -> str | None:
        """Return a stream to ask for, as it may have no leader without any reader noticing; each in turn.

        None without such a stream, or if the server stores messages.
        """
        if not self._awaited or self._clock() - self._stored_at < STORED_SECONDS:
            return None
        stream = next(iter(self._awaited))
        del self._awaited[stream]
        return stream

    def answered(self, what: str) -> None:
        """Note an answer, be it a refusal."""
        self._silent.pop(what, None)

    def doubtful(self, what: str, why: str) -> None:
        """Note a conflict in flight, which counts as no answer if the kind is silent already."""
        if what in self._silent:
            self.unanswered(what, 0.0, why)

    def unanswered(self, what: str, waited: float, why: str) -> None:
        """Note that there was no answer within `waited` seconds, or that the stream has no leader now."""
        now = self._clock()
        begun = now - waited
        since, last = self._silent.get(what, (begun, begun))
        if begun - last > LEAVE_SECONDS:
            since = begun  # There were no requests in between, so the earlier silence tells nothing.
        self._silent[what] = (since, now)
        patience = ELECTION_SECONDS if now - self._stored_at < STORED_SECONDS else LEAVE_SECONDS
        if now - since >= patience - _CLOCK_SECONDS and now >= self._not_before:
            self._silent.clear()
            self._not_before = now + LEAVE_SECONDS
            self._leave(f"{what} is not answered: {why}")

    def connected(self) -> None:
        """Forget all, at a new connection."""
        self._silent.clear()
        self._awaited.clear()
        self._stored_at = float("-inf")


def majority_silence(cluster: Mapping[str, Any]) -> float:
    """Return how long the leader of a stream has not heard of a majority, in seconds; from the stream's information."""
    silences = sorted(int(replica.get("active", 0)) for replica in cluster.get("replicas") or ())
    return silences[(len(silences) + 1) // 2 - 1] / 1e9 if silences else 0.0


_UNUSED = Answers()


def answers_of(connection: object) -> Answers:
    """Return the answers of a connection made by `nats_connection`; for any other connection, unused ones."""
    found = getattr(connection, "answers", None)
    return found if isinstance(found, Answers) else _UNUSED
