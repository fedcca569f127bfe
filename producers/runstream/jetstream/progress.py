"""How a consumer of the log gets on, asked by request and reply: when it last moved, and the error that holds it up.

Only the process that consumes knows the error. It answers as long as it has the partition, so that no answer means
that no process has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from runstream.jetstream.questions import NoAnswer, Questions

ASK_SECONDS = 0.5
MAX_REASON = 300
"""Characters of an error's text that are passed on."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Progress:
    """When a consumer last moved on, and what has failed since."""

    moved_at: datetime = field(default_factory=_now)
    error: str = ""
    """Empty when nothing has failed since it moved."""
    reached: dict[int, int] = field(default_factory=dict)
    """The last sequence taken in of each partition; empty where rows in Postgres say it."""

    def moved(self, reached: Mapping[int, int] | None = None) -> None:
        """Note that the consumer has moved on, and how far it is."""
        self.moved_at, self.error = _now(), ""
        self.reached = dict(reached or {})

    def failed(self, error: str) -> None:
        """Note what keeps the consumer from moving on."""
        self.error = error[:MAX_REASON]

    async def answer(self, _question: bytes) -> bytes:
        """Return all of it as JSON, for `Questions.answering`."""
        return msgspec.json.encode(self)


async def ask_progress(questions: Questions, subject: str, seconds: float = ASK_SECONDS) -> Progress | NoAnswer:
    """Return the progress of the consumer that answers on this subject, or why there is no answer."""
    answer = await questions.ask(subject, b"", seconds)
    return answer if isinstance(answer, NoAnswer) else msgspec.json.decode(answer, type=Progress)
