"""Secret values do not leave the executor in what steps write: each is replaced before the bytes go anywhere.

A value is looked for as it is, line by line (a terminal ends lines otherwise), and in base64. What may be the
beginning of one is held back until more bytes decide, never more than the longest of them. Values of less than four
bytes are not replaced: they would be found everywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

MASK = b"***"
MIN_BYTES = 4
_BASE64_LINE = 76


class Masker:
    """Replaces secret values in one stream of bytes."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._patterns = sorted({pattern for secret in secrets for pattern in _patterns(secret)})
        self._held = b""
        self._covered = 0
        """How many of the held bytes belong to a value that was replaced already."""

    def feed(self, chunk: bytes) -> bytes:
        """What may be shown after these bytes."""
        return self._take(self._held + chunk, last=False) if self._patterns else chunk

    def end(self) -> bytes:
        """What is left."""
        return self._take(self._held, last=True)

    def _take(self, data: bytes, *, last: bool) -> bytes:
        until = len(data) if last else self._undecided(data)
        shown = bytearray()
        end = self._covered
        for begin, found_end in sorted(self._occurrences(data)):
            if begin >= end:
                if begin >= until:
                    break
                shown += data[end:begin] + MASK
            end = max(end, found_end)
        shown += data[end:until]
        self._held, self._covered = data[until:], max(end - until, 0)
        return bytes(shown)

    def _occurrences(self, data: bytes) -> Iterator[tuple[int, int]]:
        for pattern in self._patterns:
            begin = data.find(pattern)
            while begin >= 0:
                yield begin, begin + len(pattern)
                begin = data.find(pattern, begin + 1)

    def _undecided(self, data: bytes) -> int:
        """Where the longest end of the data begins that may be the beginning of a value."""
        return min((_partial(data, pattern) for pattern in self._patterns), default=len(data))


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text without these values."""
    masker = Masker(secrets)
    return (masker.feed(text.encode()) + masker.end()).decode(errors="replace")


def _partial(data: bytes, pattern: bytes) -> int:
    begin = data.find(pattern[:1], max(len(data) - len(pattern) + 1, 0))
    while begin >= 0 and not pattern.startswith(data[begin:]):
        begin = data.find(pattern[:1], begin + 1)
    return begin if begin >= 0 else len(data)


def _patterns(secret: str) -> Iterator[bytes]:
    value = secret.encode()
    forms = [value, *value.split(b"\n"), base64.b64encode(value), base64.b64encode(value + b"\n")]
    for form in forms:
        yield from (text for text in (form.strip(), form.strip().rstrip(b"=")) if len(text) >= MIN_BYTES)
    for encoded in forms[-2:]:
        if len(encoded) > _BASE64_LINE:
            yield from (encoded[at : at + _BASE64_LINE] for at in range(0, len(encoded) - MIN_BYTES, _BASE64_LINE))
