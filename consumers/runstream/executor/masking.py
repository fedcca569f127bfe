"""Secrets are replaced by `***` in what steps write, before a byte of it leaves the executor.

One automaton finds the first bytes of all spellings of all secrets at once; what it finds is compared with the
sorted spellings. So the cost is that of one pass over the output, however many lines the secrets have. Output that
may be the beginning of a spelling is held back until the bytes that decide come, at most the longest spelling.
However the output is cut into chunks, the result is the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ahocorasick_rs import BytesAhoCorasick

from runstream.executor.spellings import LONGEST, spellings

MASK = b"***"
_NEEDLE = 8
"""Bytes of a spelling that the automaton looks for: few, since its building costs by their sum, and holds the GIL."""
_WORD_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") | {*range(0x80, 0x100)}


@dataclass(frozen=True, slots=True)
class Masking:
    """The secrets of a task, prepared. Immutable: all logs of the task share it, in any thread."""

    _spellings: dict[bytes, bool] = field(default_factory=dict, repr=False)
    _sorted: list[bytes] = field(default_factory=list, repr=False)
    _beginnings: frozenset[bytes] = field(default_factory=frozenset, repr=False)
    _automaton: BytesAhoCorasick | None = field(default=None, repr=False)

    @classmethod
    def of(cls, secrets: Iterable[str]) -> Masking:
        """Prepare these secrets: about 10 ms for a key, 0.1 s for 128 KiB."""
        found: dict[bytes, bool] = {}
        for secret in secrets:
            for text, word in spellings(secret).items():
                found[text] = found.get(text, True) and word
        if not found:
            return cls()
        needles = sorted({text[:_NEEDLE] for text in found})
        beginnings = frozenset(needle[:length] for needle in needles for length in range(1, len(needle)))
        return cls(found, sorted(found), beginnings, BytesAhoCorasick(needles))

    def __bool__(self) -> bool:
        """Whether there is anything to mask."""
        return bool(self._spellings)

    def masked(self, text: str) -> str:
        """The text without secrets."""
        masker = Masker(self)
        return (masker.feed(text.encode()) + masker.end()).decode(errors="replace")

    def find(self, data: bytes, before: int | None, *, last: bool) -> tuple[list[tuple[int, int]], int]:
        """The spellings in `data` as sorted begins and ends, and from where on more bytes are needed to decide.

        `before` is the byte before the data, None at the beginning of the stream; `last` is true at its end.
        """
        if self._automaton is None:
            return [], len(data)
        undecided = len(data) if last else self._open_end(data)
        found: list[tuple[int, int]] = []
        begins = {begin for _, begin, _ in self._automaton.find_matches_as_indexes(data, overlapping=True)}
        for begin in sorted(begins):
            end = self._longest(data, begin, before, last=last)
            if end:
                found.append((begin, end))
            if not last and self._may_grow(data, begin):
                undecided = min(undecided, begin)
        return found, undecided

    def _longest(self, data: bytes, begin: int, before: int | None, *, last: bool) -> int:
        """The end of the longest spelling that begins here; 0 for none."""
        previous = data[begin - 1] if begin else before
        for text in self._prefixes(data, begin):
            end = begin + len(text)
            if not self._spellings[text]:
                return end
            stands_alone = previous not in _WORD_BYTES and (end < len(data) or last)
            if stands_alone and (end == len(data) or data[end] not in _WORD_BYTES):
                return end
        return 0

    def _prefixes(self, data: bytes, begin: int) -> Iterator[bytes]:
        """The spellings that the data begins with here, the longest first."""
        rest = data[begin : begin + LONGEST]
        at = bisect_right(self._sorted, rest)
        while at:
            text = self._sorted[at - 1]
            if rest.startswith(text):
                yield text
                rest = rest[: len(text) - 1]
            else:
                rest = rest[: _common(rest, text)]
            if not rest:
                return
            at = bisect_right(self._sorted, rest, hi=at)

    def _may_grow(self, data: bytes, begin: int) -> bool:
        """Whether a longer spelling may begin here than the data shows, or a word that more bytes decide."""
        rest = data[begin:]
        if len(rest) > LONGEST:
            return False
        at = bisect_left(self._sorted, rest)
        if at < len(self._sorted) and self._sorted[at] == rest:
            if self._spellings[rest]:
                return True
            at += 1
        return at < len(self._sorted) and self._sorted[at].startswith(rest)

    def _open_end(self, data: bytes) -> int:
        """Where the longest end of the data begins that is a beginning of what the automaton looks for."""
        for begin in range(max(len(data) - _NEEDLE + 1, 0), len(data)):
            if data[begin:] in self._beginnings:
                return begin
        return len(data)


class Masker:
    """Replaces the secrets in one stream of bytes."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking
        self._held = b""
        self._before: int | None = None
        """The byte before the held ones."""
        self._covered = -1
        """How many of the held bytes belong to a spelling that was replaced already; -1 if none touches them."""

    @property
    def masks(self) -> bool:
        """Whether there is anything to mask."""
        return bool(self._masking)

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk; return what may be shown now."""
        return self._take(self._held + chunk, last=False) if self._masking and chunk else chunk

    def end(self) -> bytes:
        """Return what is left."""
        return self._take(self._held, last=True)

    def _take(self, data: bytes, *, last: bool) -> bytes:
        found, until = self._masking.find(data, self._before, last=last)
        shown: list[bytes] = []
        covered = self._covered
        for begin, end in found:
            if begin >= until:
                break
            if begin > covered:
                shown += data[max(covered, 0) : begin], MASK
            covered = max(covered, end)
        if covered < until:
            shown.append(data[max(covered, 0) : until])
        self._held = data[until:]
        self._covered = covered - until if covered >= until else -1
        if until:
            self._before = data[until - 1]
        return b"".join(shown)


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two texts have in common at their beginning."""
    for at, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return at
    return min(len(one), len(other))
