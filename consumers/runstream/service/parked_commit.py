"""One parked commit, as far as it can be read, for people and for programs."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

import msgspec
import orjson

from runstream import glance
from runstream.cli.output import timestamp
from runstream.commits import Position
from runstream.counting import counted
from runstream.database import Database
from runstream.errors import NotExistError
from runstream.feed import read_again
from runstream.log.port import Log, RawMessage
from runstream.projections.parked import ParkedCommit, SkipDecision, list_parked, skip_decision_of
from runstream.subjects import aggregate_of

_SHOWN_BEHIND = 20


@dataclass(frozen=True, slots=True)
class Found:
    """A commit that is parked, or was skipped."""

    message: RawMessage
    parked: ParkedCommit | None
    """None when it is not parked any more."""
    behind: tuple[Position, ...]
    """The commits of its aggregate that wait behind it."""
    decided: SkipDecision | None
    """None when nothing was decided about it."""


async def find(log: Log, database: Database, position: Position) -> Found:
    """The commit. Raises NotExistError when it is neither parked nor skipped."""
    async with database.snapshot() as transaction:
        parked = await list_parked(transaction, position.partition, position.epoch)
    one = next((each for each in parked if each.position == position), None)
    decided = None
    there = position.epoch == log.epoch and position.partition < log.partitions
    if there and 0 < position.sequence <= await log.end(position.partition):
        (message,) = await read_again(log, position.partition, [position.sequence])
        decided = await skip_decision_of(log, message)
    if not there or (one is None and decided is None):
        raise NotExistError(
            f"the commit at {position} is not parked",
            code="commitNotParked",
            details={"position": str(position)},
            hint="`runstream parked list` shows what is; `runstream events tail` shows every commit",
        )
    behind = [each.position for each in parked if one is not None and each.aggregate == one.aggregate]
    return Found(message, one, tuple(each for each in behind if each > position), decided)


def lines_of(found: Found) -> list[str]:
    """For people."""
    message = found.message
    lines = [
        f"position   {message.position}",
        f"aggregate  {aggregate_of(message.subject)}",
        f"subject    {message.subject}",
        f"stored     {timestamp(message.stored_at)}",
        *(f"header     {name}: {value}" for name, value in sorted(message.headers.items())),
    ]
    if found.parked is not None:
        lines += [f"parked     {timestamp(found.parked.at)}", f"why        {found.parked.reason}"]
        lines.append(f"behind it  {_behind(found.behind)}")
    if found.decided is not None:
        one = found.decided
        lines.append(f"skipped    {timestamp(one.at)} by {one.by}, recorded at {one.position}: {one.reason}")
    json, text, base64 = body_of(message)
    if json is not None:
        shown = msgspec.json.format(json, indent=2).decode()
    else:
        shown = text if text is not None else f"{base64}"
    kind = "JSON" if json is not None else "text" if text is not None else "neither JSON nor text, in base64"
    return [*lines, f"body       {counted(len(message.data), 'byte')}; {kind}:", shown]


def json_of(found: Found) -> dict[str, object]:
    """For programs: of the body one of `json`, `text` and `base64`."""
    message, parked, one = found.message, found.parked, found.decided
    json, text, base64 = body_of(message)
    return {
        "position": str(message.position),
        "aggregate": aggregate_of(message.subject),
        "subject": message.subject,
        "stored_at": message.stored_at,
        "headers": message.headers,
        "parked": None if parked is None else {"at": parked.at, "reason": parked.reason},
        "behind": [str(position) for position in found.behind],
        "skipped": None
        if one is None
        else {"position": str(one.position), "by": one.by, "at": one.at, "reason": one.reason},
        "body": {"json": None if json is None else msgspec.Raw(json), "text": text, "base64": base64},
    }


def body_of(message: RawMessage) -> tuple[bytes | None, str | None, str | None]:
    """The body as JSON, as text or in base64: the first of these that it is. What is corrupt is as it was stored."""
    body = glance.body_of(message)
    if _is_json(body):
        return body, None, None
    text = body.decode(errors="replace")
    if text.encode() == body and all(character.isprintable() or character in "\n\t" for character in text):
        return None, text, None
    return None, None, b64encode(body).decode()


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def _behind(positions: tuple[Position, ...]) -> str:
    if not positions:
        return "nothing"
    shown = ", ".join(map(str, positions[:_SHOWN_BEHIND]))
    more = f", and {len(positions) - _SHOWN_BEHIND} more" if len(positions) > _SHOWN_BEHIND else ""
    return f"{counted(len(positions), 'commit')}: {shown}{more}"
