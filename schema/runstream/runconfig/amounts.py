"""The spelling of durations (`1h2m3.5s`, rule config-12) and of amounts of bytes (`1Gi`, `512`, rule config-6)."""

from __future__ import annotations

import math
import re
from fractions import Fraction

UNITS: dict[str, int] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
"""The units of a duration, in nanoseconds."""
_PART = re.compile(rf"([0-9]*)(?:\.([0-9]*))?({'|'.join(UNITS)})")
_MAX_TEXT = 100
_MAX_INT64 = (1 << 63) - 1
MAX_NANOSECONDS = _MAX_INT64
MAX_QUANTITY = _MAX_INT64
"""Bytes."""
MAX_PROCESSORS = 1_000_000
"""Thousandths."""


def parse_duration(text: str) -> int:
    """Return nanoseconds. Raise ValueError, with a sentence, for another text or more than 292 years."""
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
        total += _part_nanoseconds(part[1], part[2] or "", UNITS[part[3]])
        position = part.end()
    return within_int64(sign * total)


def within_int64(nanoseconds: int) -> int:
    """Return the number. Raise ValueError if it does not fit into 64 bits."""
    if abs(nanoseconds) > MAX_NANOSECONDS:
        raise ValueError("the duration is longer than 292 years")
    return nanoseconds


def format_duration(nanoseconds: int) -> str:
    """Return the shortest text of a duration: `10s`, `1h2m3.5s`, `1.5ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left < UNITS["s"]:
        unit = next(unit for unit in ("ms", "µs", "ns") if left >= UNITS[unit])
        return f"{sign}{_decimal(left, UNITS[unit])}{unit}"
    hours, left = divmod(left, UNITS["h"])
    minutes, left = divmod(left, UNITS["m"])
    seconds = f"{_decimal(left, UNITS['s'])}s"
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


_QUANTITY = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]{1,3})?"
)
_BINARY = {suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse_quantity(text: str) -> int:
    """Return bytes, rounded up. Raise ValueError, with a sentence, for another text, below 0 and over 2^63."""
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if match is None:
        raise ValueError(f"{text[:40]!r} is not an amount of bytes")
    sign, number, suffix = match[1], match[2], match[3] or ""
    amount = math.ceil(Fraction(number) * _factor(suffix))
    if sign == "-" and amount:
        raise ValueError("an amount of bytes cannot be negative")
    if amount > MAX_QUANTITY:
        raise ValueError("the amount of bytes does not fit into 64 bits")
    return amount


def parse_processors(text: str) -> int:
    """Return thousandths of a processor, rounded up, of a text such as `2`, `0.5` or `500m`. Raise ValueError."""
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if match is None or match[1] == "-" or match[3] not in (None, "m"):
        raise ValueError(f"{text[:40]!r} is not a number of processors")
    amount = math.ceil(Fraction(match[2]) * (1 if match[3] else 1000))
    if amount > MAX_PROCESSORS:
        raise ValueError("there are no machines with so many processors")
    return amount


def _factor(suffix: str) -> Fraction:
    if suffix in _BINARY:
        return Fraction(_BINARY[suffix])
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    return Fraction(10) ** exponent
