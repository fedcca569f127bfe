"""Replaces secrets by `***` in the output of steps, before any of it leaves the executor.

One automaton finds the first bytes of all spellings of all secrets at once; what it finds is compared with the sorted
spellings. So the cost is that of one pass over the output, however many lines the secrets have. Output that may be the
beginning of a spelling is held back until further bytes decide, at most the length of the longest spelling. The result
does not depend on how the output is cut into chunks.
"""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from urllib.parse import quote, unquote

from ahocorasick_rs import BytesAhoCorasick

from runstream.runconfig.variables import LEAST_MASKED_BYTES

MASK = b"***"
_NEEDLE = 8
"""Length of the prefixes in the automaton: short, because building it takes time for each byte, and holds the GIL."""
_WORD_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") | {*range(0x80, 0x100)}


@dataclass(frozen=True, slots=True)
class Masking:
    """The prepared secrets of a task; immutable, so that all logs of the task share it, in any thread."""

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
        """Return whether there is anything to mask."""
        return bool(self._spellings)

    def masked(self, text: str) -> str:
        """Return the text with its secrets masked."""
        masker = Masker(self)
        return (masker.feed(text.encode()) + masker.end()).decode(errors="replace")

    def find(self, data: bytes, before: int | None, *, last: bool) -> tuple[list[tuple[int, int]], int]:
        """Return the spellings in `data` as sorted starts and ends, and the index from which more bytes are needed to
        decide.

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
        """Return the end of the longest spelling that begins here; 0 for none."""
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
        """Return the spellings that begin here, the longest first."""
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
        """Return whether more bytes may complete a longer spelling here, or decide where a word ends."""
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
        """Return the start of the longest suffix of the data that is a prefix of a needle of the automaton."""
        for begin in range(max(len(data) - _NEEDLE + 1, 0), len(data)):
            if data[begin:] in self._beginnings:
                return begin
        return len(data)


class Masker:
    """A filter that replaces the secrets in one stream of bytes."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking
        self.held = b""
        """Bytes that may be the beginning of a secret: shown once it is certain that they are not."""
        self._before: int | None = None
        """The byte before the held ones."""
        self._covered = -1
        """Number of held bytes covered by an already replaced spelling; -1 if no such spelling touches them."""

    @property
    def masks(self) -> bool:
        """True if there is anything to mask."""
        return bool(self._masking)

    def feed(self, chunk: bytes) -> bytes:
        """Add a chunk; return the output that can be shown now."""
        return self._take(self.held + chunk, last=False) if self._masking and chunk else chunk

    def end(self) -> bytes:
        """Return the rest at the end of the stream."""
        return self._take(self.held, last=True)

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
        self.held = data[until:]
        self._covered = covered - until if covered >= until else -1
        if until:
            self._before = data[until - 1]
        return b"".join(shown)


def _common(one: bytes, other: bytes) -> int:
    """Return the length of the common prefix of two texts."""
    for at, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return at
    return min(len(one), len(other))


LONGEST = 256
"""Maximum length of a spelling in bytes. Longer texts are cut, so that little output is held back."""
_FINE_BYTES = 512
"""Maximum length of a secret whose encodings are found with any wrapping; longer ones only with that of common
tools."""
_WINDOW = 16
_BEFORE_END = 2
_WORD_LETTERS = 8
"""Secrets of fewer letters than this, and nothing else, are masked only as whole words."""
_NEIGHBOUR = 32
_LONE_USER = 16
"""Minimum length of a user name in a URL without a password that counts as a token."""
_DEPTH = 5
_CREDENTIALS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#\s]*)@")
_LITERALS = frozenset({"true", "false", "null", "none"})
_SAFE_IN_URLS = ("", "/", "!*'()", "!*'()/;:@&=+$,?#")
_WRAPS = (64, 76)


def spellings(secret: str) -> dict[bytes, bool]:
    """Return all spellings of a secret, and whether each is masked only as a whole word."""
    found: dict[bytes, bool] = {}
    for text, word in _texts(secret):
        for piece in _pieces(text):
            if len(piece) >= LEAST_MASKED_BYTES:
                found[piece] = found.get(piece, True) and word
    return found


def _texts(secret: str) -> Iterator[tuple[bytes, bool]]:
    for value, number in _values(secret, _DEPTH):
        data = value.strip().encode(errors="replace")
        fine = len(data) <= _FINE_BYTES
        encoded = {*_base64(data, fine=fine), *_hex(data, fine=fine)}
        for part in _parts(value):
            written = part.encode(errors="replace")
            word = number or (len(part) < _WORD_LETTERS and part.isascii() and part.isalpha())
            yield from ((text.encode(errors="replace"), word) for text in {part, *_escaped(part)})
            if fine and written != data and len(written) >= LEAST_MASKED_BYTES:
                encoded |= {*_base64(written, fine=True), *_hex(written, fine=True)}
        if len(data) >= LEAST_MASKED_BYTES:
            yield from ((text, False) for text in encoded)
            yield from ((text, True) for text in _last_lines(data))


def _values(text: str, depth: int) -> Iterator[tuple[str, bool]]:
    """Return the text, its values if it is JSON, and its credentials if it is a URL; with whether each is a number."""
    yield text, False
    if depth == 0:
        return
    if match := _CREDENTIALS.match(text.strip()):
        user, colon, password = match[1].partition(":")
        given = password if colon else user if len(user) >= _LONE_USER else ""
        yield from ((each, False) for each in {given, unquote(given)} - {""})
    if text.lstrip()[:1] in ("{", "["):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return  # it is no JSON
        for leaf in _leaves(document):
            if isinstance(leaf, str):
                yield from _values(leaf, depth - 1)
            else:
                yield json.dumps(leaf), True


def _leaves(document: object) -> Iterator[str | int | float]:
    pending = [document]
    while pending:
        match pending.pop():
            case dict() as entries:
                pending.extend(entries.values())
            case list() as items:
                pending.extend(items)
            case bool() | None:
                pass
            case str() | int() | float() as leaf if str(leaf).lower() not in _LITERALS:
                yield leaf


def _parts(value: str) -> Iterator[str]:
    """Return each line that is long enough, and shorter ones with their neighbours, with both kinds of line ends."""
    lines = [line.strip() for line in value.strip().split("\n")]
    yield from (line for line in lines if not _short(line))
    runs = [(short, list(group)) for short, group in groupby(lines, _short)]
    around = [(False, [""]), *runs, (False, [""])]
    for (_, before), ((short, between), (_, after)) in zip(around, pairwise(around[1:]), strict=False):
        if short and any(between):
            joined = [before[-1][-_NEIGHBOUR:], *between, after[0][:_NEIGHBOUR]]
            for end in ("\n", "\r\n"):
                yield end.join(joined).strip()


def _short(line: str) -> bool:
    return len(line.encode(errors="replace")) < LEAST_MASKED_BYTES


def _pieces(text: bytes) -> Iterator[bytes]:
    if len(text) <= LONGEST:
        yield text
        return
    yield from (text[at : at + LONGEST] for at in range(0, len(text) - LONGEST, LONGEST))
    yield text[-LONGEST:]


def _escaped(text: str) -> Iterator[str]:
    yield from _json(text)
    yield from _xml(text)
    yield from _url(text)
    yield from _shell(text)
    yield text.replace("'", "''")  # YAML, SQL
    yield text.replace('"', '""')  # CSV
    yield from (repr(text)[1:-1], ascii(text)[1:-1], repr(text.encode(errors="replace"))[2:-1])


def _json(text: str) -> Iterator[str]:
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        safe = re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", plain)  # as Go writes it
        for one in (plain, safe, plain.replace("/", "\\/")):
            yield one
            yield re.sub(r"(?<=\\u)[0-9a-f]{4}", lambda match: match[0].upper(), one)
            yield json.dumps(one, ensure_ascii=False)[1:-1]  # JSON in JSON


def _xml(text: str) -> Iterator[str]:
    plain = html.escape(text, quote=False)
    for escaped in dict.fromkeys((plain, plain.replace("&gt;", ">"))):  # `>` needs no escaping
        for double in ('"', "&quot;", "&#34;"):
            for single in ("'", "&#39;", "&#039;", "&#x27;", "&apos;"):
                one = escaped.replace('"', double).replace("'", single)
                yield one
                yield one.encode("ascii", "xmlcharrefreplace").decode()


def _url(text: str) -> Iterator[str]:
    every = "".join(f"%{byte:02X}" for byte in text.encode(errors="replace"))
    yield from (every, every.lower())
    for safe in _SAFE_IN_URLS:
        for tilde in ("~", "%7E"):
            upper = quote(text, safe=safe, errors="replace").replace("~", tilde)
            lower = re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), upper)
            for one in (upper, lower):
                yield one
                yield one.replace("%20", "+")


def _shell(text: str) -> Iterator[str]:
    yield text.replace("'", "'\\''")  # bash: set -x
    yield text.replace("'", "'\"'\"'")
    dash = re.sub("'+", lambda match: f"'\"{match[0]}\"'", text)
    yield from (dash, dash.strip("'"))  # dash: export -p, without empty texts at its ends
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", text)  # bash: printf %q
    yield re.sub(r"([^\w@%+:./-])", r"\\\1", text)
    yield re.sub(r"([^\w@%+=:./-])", r"\\\1", text)
    yield re.sub(r'([$`"\\])', r"\\\1", text)  # bash: declare -p
    control = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t")
    control = control.replace("\r", "\\r").replace("\x1b", "\\E")
    yield control  # bash: $'…'
    yield "".join(one if one.isascii() else "".join(f"\\{byte:03o}" for byte in one.encode()) for one in control)


def _base64(data: bytes, *, fine: bool) -> Iterator[bytes]:
    for shift in range(3):
        begin = (0, 2, 3)[shift]  # the first characters that the bytes before have no part in
        whole = base64.b64encode(bytes(shift) + data)[begin:]
        inner = whole[: (shift + len(data)) * 8 // 6 - begin]
        with_end = base64.b64encode(bytes(shift) + data + b"\n")[begin:]
        for text in (inner, whole, with_end):
            widths = _WRAPS if shift == 0 else _WRAPS[:1]
            pieces = [*_windows(text, 4, widths, fine=fine), *(_around_ends(text, 4, -begin % 4) if fine else ())]
            for piece in pieces:
                yield piece
                yield piece.translate(_URL_SAFE)


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _last_lines(data: bytes) -> Iterator[bytes]:
    """Return the short last line of wrapped base64."""
    for end in (b"", b"\n"):
        encoded = base64.b64encode(data + end)
        for width in _WRAPS:
            last = encoded[len(encoded) // width * width :]
            if len(last) < min(len(encoded), _WINDOW):
                yield last.rstrip(b"=")


def _hex(data: bytes, *, fine: bool) -> Iterator[bytes]:
    spelled = [(data.hex(), 2)]
    if fine:
        spelled += [(data.hex(" "), 3), (data.hex(":"), 3)]
        spelled += [(data[at:].hex(" ", -2), 5) for at in range(2)]  # as xxd groups it
    for text, unit in spelled:
        around = _around_ends(text.encode(), unit, 0) if fine and unit == 2 else ()
        for piece in (*_windows(text.encode(), unit, (60, 64), fine=fine), *around):
            yield piece
            yield piece.upper()


def _windows(text: bytes, unit: int, widths: Iterable[int], *, fine: bool) -> Iterator[bytes]:
    """Return pieces that cover the text; with `fine`, even if it is wrapped at any multiple of `unit`."""

    def cut(size: int, step: int) -> list[bytes]:
        return [text[at : at + size] for at in range(0, max(len(text) - size, 0) + step, step)]

    if not fine:
        for width in widths:
            yield from (piece for piece in cut(width, width) if len(piece) >= _WINDOW)
        yield text[-min(widths) :]
        return
    size = _WINDOW - _WINDOW % unit
    yield from (piece for piece in cut(size, unit) if len(piece) >= min(size, len(text)))
    yield text[-size:]
    for shorter in (size // 2, size * 3 // 4):  # at the ends of lines
        yield from (text[: shorter - shorter % unit], text[-(shorter - shorter % unit) :])


def _around_ends(text: bytes, unit: int, first: int) -> Iterator[bytes]:
    """Return what is around the end of a line at `first` and at any multiple of `unit` after it.

    Windows have no line ends, so fragments at the end and the start of a line are in none of them. A single letter
    before a line end does not count: it would hold back the end of every line that ends with it.
    """
    for at in range(first, len(text), unit):
        if at:
            yield text[at : at + _WINDOW]
        if at >= _BEFORE_END:
            for end in (b"\n", b"\r\n"):
                yield text[max(at - _WINDOW, 0) : at] + end + text[at : at + _WINDOW]
