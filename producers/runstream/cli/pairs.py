"""NAME=VALUE texts, as options take them."""

from __future__ import annotations

from collections.abc import Sequence

from runstream.errors import BadRequestError


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """NAME=VALUE texts as a dict. Raises BadRequestError for one without a name."""
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise BadRequestError(
                f"{option} {text[:80]!r} is not NAME=VALUE", code="invalidPair", hint=f"as in {option} STAGE=test"
            )
        found[name.strip()] = value
    return found
