"""What looks for consumers of the log that stand still, in a process with a database."""

from __future__ import annotations

from runstream.jetstream.messaging import Questions
from runstream.service.platform import Platform
from runstream.service.stalls import Consumed, StallWatch


def make_stall_watch(platform: Platform) -> StallWatch:
    """Return a watch that is not started yet."""
    questions = Questions(platform.nats)
    return StallWatch(lambda: Consumed(platform.reading_log(), platform.pool(), questions, platform.objects))
