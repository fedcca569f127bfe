"""Durations as they are written in configurations: `1h2m3.5s`, or a number of nanoseconds (rule config-12)."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS: dict[str, int] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_MAX_TEXT = 100
MAX_NANOSECONDS = (1 << 63) - 1


def parse_duration(text: str) -> int:
    """Nanoseconds. Raises ValueError (one sentence) for what is not a duration, or over 292 years."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text.startswith(("-", "+")) else text
    if rest == "0":
        return 0
    if not rest or len(text) > _MAX_TEXT:
        raise ValueError(f"{text[:40]!r} is not a duration")
    total, position = 0, 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None or not (part[1] or part[2]):
            raise ValueError(f"{text[:40]!r} is not a duration")
        total += _part_nanoseconds(part[1], part[2] or "", _UNITS[part[3]])
        position = part.end()
    return within_int64(sign * total)


def within_int64(nanoseconds: int) -> int:
    """The number itself. Raises ValueError when it does not fit into 64 bits."""
    if abs(nanoseconds) > MAX_NANOSECONDS:
        raise ValueError("the duration is longer than 292 years")
    return nanoseconds


def format_duration(nanoseconds: int) -> str:
    """The shortest text of a duration: `10s`, `1h2m3.5s`, `1.5ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left < _UNITS["s"]:
        unit = next(unit for unit in ("ms", "µs", "ns") if left >= _UNITS[unit])
        return f"{sign}{_decimal(left, _UNITS[unit])}{unit}"
    hours, left = divmod(left, _UNITS["h"])
    minutes, left = divmod(left, _UNITS["m"])
    seconds = f"{_decimal(left, _UNITS['s'])}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def _part_nanoseconds(whole: str, fraction: str, unit: int) -> int:
    number = Fraction(int(whole or "0")) + Fraction(int(fraction or "0"), 10 ** len(fraction))
    return int(number * unit)


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")
