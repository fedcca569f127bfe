"""Amounts of bytes as they are written for containers: `1Gi`, `10M`, `512` (rule config-6)."""

from __future__ import annotations

import math
import re
from fractions import Fraction

_QUANTITY = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]{1,3})?"
)
_BINARY = {suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_MAX_TEXT = 100
_MAX_BYTES = (1 << 63) - 1


def parse_quantity(text: str) -> int:
    """Bytes, rounded up. Raises ValueError (one sentence) for what is not an amount, negative, or over 2^63."""
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if match is None:
        raise ValueError(f"{text[:40]!r} is not an amount of bytes")
    sign, number, suffix = match[1], match[2], match[3] or ""
    amount = math.ceil(Fraction(number) * _factor(suffix))
    if sign == "-" and amount:
        raise ValueError("an amount of bytes cannot be negative")
    if amount > _MAX_BYTES:
        raise ValueError("the amount of bytes does not fit into 64 bits")
    return amount


def _factor(suffix: str) -> Fraction:
    if suffix in _BINARY:
        return Fraction(_BINARY[suffix])
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    return Fraction(10) ** exponent
