"""A parked commit as it is in the log: its body, why it is parked, what waits behind it, and whether it was skipped."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

import msgspec
import orjson

from runstream import api, glance
from runstream.commits import Position
from runstream.database.database import Database
from runstream.feed import read_again
from runstream.log.port import Log, RawMessage
from runstream.projections.parked import ParkedCommit, SkipDecision, list_parked, not_parked, skip_decision_of
from runstream.subjects import aggregate_of


@dataclass(frozen=True, slots=True)
class FoundCommit:
    """A commit that is parked or was skipped."""

    message: RawMessage
    parked: ParkedCommit | None
    """None when it is no longer parked."""
    behind: tuple[Position, ...]
    """Later commits of its aggregate, parked behind it."""
    decided: SkipDecision | None
    """None unless it was skipped."""


async def find(log: Log, database: Database, position: Position) -> FoundCommit:
    """Return the commit. Raise NotExistError when it is neither parked nor skipped."""
    async with database.snapshot() as transaction:
        parked = await list_parked(transaction, position.partition, position.epoch, projection=log.subjects.service)
    one = next((each for each in parked if each.position == position), None)
    decided = None
    there = position.epoch == log.epoch and position.partition < log.partitions
    if there and 0 < position.sequence <= await log.end(position.partition):
        (message,) = await read_again(log, position.partition, [position.sequence])
        decided = await skip_decision_of(log, message)
    if not there or (one is None and decided is None):
        raise not_parked(position)
    behind = [each.position for each in parked if one is not None and each.aggregate == one.aggregate]
    return FoundCommit(message, one, tuple(each for each in behind if each > position), decided)


def parked_answer(one: ParkedCommit) -> api.ParkedCommitView:
    """Return a parked commit as the API shows it."""
    return api.ParkedCommitView(str(one.position), one.subject, one.aggregate, one.reason, one.at)


def skipped_answer(one: SkipDecision) -> api.SkippedCommit:
    """Return a skip decision as the API shows it."""
    return api.SkippedCommit(
        str(one.position), one.subject, one.skipped, one.version_after, one.by, one.at, one.reason, one.sha256
    )


def detail_answer(found: FoundCommit) -> api.ParkedCommitDetail:
    """Return the commit as the API shows it; one of `json`, `text` and `base64` of its body is not null."""
    message = found.message
    json, text, base64 = body_of(message)
    return api.ParkedCommitDetail(
        str(message.position),
        aggregate_of(message.subject),
        message.subject,
        message.stored_at,
        dict(message.headers),
        parked_answer(found.parked) if found.parked is not None else None,
        tuple(map(str, found.behind)),
        skipped_answer(found.decided) if found.decided is not None else None,
        api.CommitBody(None if json is None else msgspec.Raw(json), text, base64),
    )


def body_of(message: RawMessage) -> tuple[bytes | None, str | None, str | None]:
    """Return the body as JSON, else as text, else in base64; a corrupt body as it was stored."""
    body = glance.body_of(message)
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    else:
        return body, None, None
    text = body.decode(errors="replace")
    if text.encode() == body and all(character.isprintable() or character in "\n\t" for character in text):
        return None, text, None
    return None, None, b64encode(body).decode()
