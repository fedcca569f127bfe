"""How long things may take (`…_timeout_interval`, `no_output_timeout`), and when a task is tried again (`retry`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from runstream.events.run_config import Retry, RetryReason
from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.duration import format_duration, parse_duration, within_int64
from runstream.runconfig.fields import RETRY
from runstream.runconfig.foreign import FOREIGN_RETRY
from runstream.runconfig.nodes import Mapping, Scalar, Sequence, describe, to_int
from runstream.runconfig.problems import nearest, shown

REASONS: tuple[RetryReason, ...] = get_args(RetryReason)
MAX_RETRIES = 10
SECOND = 1_000_000_000
MAX_BACKOFF = 24 * 3_600_000_000_000
"""Nanoseconds."""
_RETRY_HINT = "such as 2, or {max: 2, backoff: 10s, on: [failure, lost, timeout]}"


def decode_interval(fields: Fields, name: str) -> int | None:
    """A duration in nanoseconds; a negative one can be written. None without it."""
    place = fields.get(name)
    if place is None:
        return None
    try:
        match place.node:
            case Scalar(kind="str", text=text):
                return _warned(place, text, parse_duration(text))
            case Scalar(kind="int" | "float", text=text):
                return _warned(place, text, within_int64(_nanoseconds(place.node)))
            case node:
                place.wrong(f"expected a duration, found {describe(node)}", "such as 1h30m")
    except ValueError as error:
        place.wrong(str(error), "such as 1h30m, or a number of nanoseconds")
    return None


def _warned(place: Cursor, text: str, nanoseconds: int) -> int:
    """Warn of an interval below a second: 60 is easily taken for seconds."""
    if 0 < abs(nanoseconds) < SECOND:
        bare = text.lstrip("+-").isdigit()
        means = f"{nanoseconds} nanoseconds" if bare else "less than a second"
        place.warn(f"{text[:40]} is {means}", f"for seconds write {text[:40]}s" if bare else "0 for none")
    return nanoseconds


def decode_limit(fields: Fields, name: str) -> int | None:
    """A duration of zero, which is no limit, or more. None without it."""
    limit = decode_interval(fields, name)
    if limit is not None and limit < 0:
        fields.found[name].wrong("the duration is negative", "0 for no limit")
        return None
    return limit


def decode_retry(fields: Fields) -> Retry | None:
    """The field `retry`: how often, or a map; with `max` 0 the task is not tried again. None without it."""
    place = fields.get("retry")
    if place is None:
        return None
    if isinstance(place.node, Mapping):
        return _retry(place.fields(RETRY, strict=True, foreign=FOREIGN_RETRY))
    if isinstance(place.node, Scalar) and place.node.kind in ("int", "float"):
        return Retry(_max(place), 0, REASONS)
    place.wrong(f"expected a number or a map, found {describe(place.node)}", _RETRY_HINT)
    return None


def _retry(fields: Fields) -> Retry:
    place = fields.get("max")
    if place is None:
        fields.place.wrong("retry needs max: how often the task is tried again", _RETRY_HINT)
    backoff = decode_limit(fields, "backoff") or 0
    if backoff > MAX_BACKOFF:
        fields.found["backoff"].wrong(f"the backoff is longer than {format_duration(MAX_BACKOFF)}")
    return Retry(0 if place is None else _max(place), min(backoff, MAX_BACKOFF), _reasons(fields.get("on")))


def _max(place: Cursor) -> int:
    number = place.whole_number()
    if not 0 <= number <= MAX_RETRIES:
        place.wrong(f"{number} is not between 0 and {MAX_RETRIES}", "it counts the attempts after the first")
        return 0
    return number


def _reasons(place: Cursor | None) -> tuple[RetryReason, ...]:
    """Those that are named, in one order, so that equal meanings are equal; all of them when nothing is said."""
    if place is None:
        return REASONS
    if place.node == Sequence(place.node.line, ()):
        place.wrong("no reason is named", nearest("", REASONS))
    named = set(_named(place))
    return tuple(reason for reason in REASONS if reason in named)


def _named(place: Cursor) -> Iterator[str]:
    for item in [place] if isinstance(place.node, Scalar) else place.items():
        text = item.strict_text()
        if text is not None and text not in REASONS:
            item.wrong(f"unknown reason {shown(text)}", nearest(text, REASONS))
        yield text or ""


def _nanoseconds(node: Scalar) -> int:
    """The number's whole nanoseconds; a fraction is dropped."""
    if node.kind == "int" and len(node.text) <= 64:
        return to_int(node.text)
    try:
        return int(float(node.text))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{node.text[:40]} is not a duration") from error
