"""The patience of a caller: how long its appends go on without an answer of the log.

Background workers have the patience of the log, half a minute, which outlasts an election or a restart of NATS. A
client of the API waits for its answer, and may ask again: its request has less (`of_request`), in all that it calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

REQUEST_SECONDS = 4.0
"""Maximum time of a request's append, in seconds. The last attempt adds its wait for an answer."""
REQUEST_SECONDS_IN_CLUSTER = 10.0
"""The same where NATS has several servers: an election, or a change of servers, takes up to ten seconds."""
_in_request: ContextVar[bool] = ContextVar("in a request", default=False)


@contextlib.contextmanager
def of_request() -> Iterator[None]:
    """Give the appends of the block the patience of a request."""
    token = _in_request.set(True)
    try:
        yield
    finally:
        _in_request.reset(token)


def append_seconds(most: float, *, servers: int = 1) -> float:
    """Return the maximum time of an append of this caller, in seconds, at most `most`."""
    if not _in_request.get():
        return most
    return min(most, REQUEST_SECONDS if servers == 1 else REQUEST_SECONDS_IN_CLUSTER)
