"""How a consumer of the log gets on, asked by request and reply: when it last moved, and the error that holds it up.

Only the process that consumes knows the error. It answers as long as it has the partition, so that no answer means
that no process has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import orjson

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

    def moved(self) -> None:
        """Note that the consumer has moved on."""
        self.moved_at, self.error = _now(), ""

    def failed(self, error: str) -> None:
        """Note what keeps the consumer from moving on."""
        self.error = error[:MAX_REASON]

    async def answer(self, _question: bytes) -> bytes:
        """Return both as JSON, for `Questions.answering`."""
        return orjson.dumps({"moved_at": self.moved_at, "error": self.error})


async def ask_progress(questions: Questions, subject: str, seconds: float = ASK_SECONDS) -> Progress | NoAnswer:
    """Return the progress of the consumer that answers on this subject, or why there is no answer."""
    answer = await questions.ask(subject, b"", seconds)
    return answer if isinstance(answer, NoAnswer) else msgspec.json.decode(answer, type=Progress)
