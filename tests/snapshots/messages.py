"""Messages of a log for tests of segments and snapshots: played runs, and what something else might have stored."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

from runstream.codec import encode
from runstream.commits import NewCommit, Position, StoredCommit
from runstream.log.port import RawMessage
from runstream.subjects import Subjects
from tests.projections.playing import played

SUBJECTS = Subjects("shop", "runs", 1)
STORED_AT = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)


def message_of(stored: StoredCommit, subjects: Subjects = SUBJECTS) -> RawMessage:
    """The message that the log has of a commit."""
    commit = stored.commit
    new = NewCommit(
        commit.id,
        commit.address,
        commit.version,
        commit.time,
        commit.actor,
        commit.cause,
        commit.events,
        0,
        commit.trace,
    )
    data, headers = encode(new)
    return RawMessage(subjects.of(commit.address), stored.position, data, headers, stored.stored_at)


def played_messages(seed: int = 1) -> list[RawMessage]:
    """One partition in which much has happened; the same each time."""
    return [*_played(seed)]


@cache
def _played(seed: int) -> tuple[RawMessage, ...]:
    return tuple(message_of(stored) for stored in played(seed, settled=True).log)


def foreign(sequence: int, data: bytes, headers: dict[str, str] | None = None, tail: str = "run.x") -> RawMessage:
    """A message that no Runstream wrote."""
    return RawMessage(f"{SUBJECTS.prefix(0)}.{tail}", Position(1, 0, sequence), data, headers or {}, STORED_AT)
