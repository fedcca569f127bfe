"""Glob patterns of paths (rule step-21): `**`, `*`, `?`, `[abc]`, `[^a-z]`, `{a,b}` and `\\` before any of them.

`**` as a whole element matches any number of elements, also none; nothing else matches a `/`. A pattern becomes two RE2
expressions, so that matching takes linear time: one for the paths that it selects, one for the directories above them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runstream.errors import BadRequestError
from runstream.runconfig.when import compile_expression

_MAX_ALTERNATIVES = 1000
_MAX_BRACES = 50
_MAX_MEMORY = 8 << 20
"""Bytes of one compiled expression: RE2's own default."""
_ANY = "**"
_NEVER = r"[^\x00-\x{10ffff}]"
"""Matches no character: for a `/` within an element, which no name has."""


class Glob:
    """A pattern of relative paths."""

    def __init__(self, pattern: str) -> None:
        """Raise BadRequestError for a malformed pattern."""
        if pattern.count("{") > _MAX_BRACES:
            raise _malformed(pattern, f"it has more than {_MAX_BRACES} braces")
        alternatives: list[list[str]] = []
        for alternative in _expand(pattern, pattern):
            if len(alternatives) == _MAX_ALTERNATIVES:
                raise _malformed(pattern, f"it has more than {_MAX_ALTERNATIVES} alternatives")
            alternatives.append([_translate(element, pattern) for element in _elements(alternative, pattern)])
        try:
            self._selected = compile_expression("|".join(map(_path, alternatives)), _MAX_MEMORY)
            self._above = compile_expression("|".join(map(_above, alternatives)), _MAX_MEMORY)
        except ValueError as error:
            raise _malformed(pattern, str(error)) from error

    def matches(self, path: str) -> bool:
        """Return whether the pattern selects this path."""
        return self._selected.fullmatch(_bytes(path)) is not None

    def goes_on(self, path: str) -> bool:
        """Return whether the pattern may select a path below this one."""
        return self._above.fullmatch(_bytes(path)) is not None


def _bytes(path: str) -> bytes:
    """Encode a path so that each byte of a name outside UTF-8, a lone surrogate in Python, counts as a character."""
    return path.encode("utf-8", "surrogatepass")


def _path(elements: Sequence[str]) -> str:
    """Return the expression of the selected paths. `**` takes the `/` beside it along."""
    if list(elements) == [_ANY]:
        return "(?s:.*)"
    expression, separator = [], ""
    for at, element in enumerate(elements):
        if element == _ANY:
            expression.append("(?s:/.*)?" if at else "(?s:.*/)?")
            separator = "/" if at else ""
        else:
            expression.append(f"{separator}{element}")
            separator = "/"
    return "".join(expression)


def _above(elements: Sequence[str]) -> str:
    """Return the expression of the directories that may hold selected paths, nested: `(?:a(?:/b)?)?` for `a/b/c`."""
    any_at = elements.index(_ANY) if _ANY in elements else len(elements)
    expression = "" if any_at == len(elements) else "(?s:/.*)?" if any_at else "(?s:.*)"
    for at in reversed(range(min(any_at, len(elements) - 1))):
        expression = f"(?:{'/' if at else ''}{elements[at]}{expression})?"
    return expression


def _elements(pattern: str, whole: str) -> list[str]:
    """Return the elements of a pattern: `./dist//x/` is `dist/x`, `a/**/**` is `a/**`, and `.` selects all."""
    cuts = [at for at, letter in _plain(pattern) if letter == "/"]
    split = (pattern[a + 1 : b] for a, b in zip([-1, *cuts], [*cuts, len(pattern)], strict=True))
    elements: list[str] = []
    for element in split:
        if element not in ("", ".") and not (element == _ANY and elements[-1:] == [_ANY]):
            elements.append(element)
    if ".." in elements:
        raise _malformed(whole, "it leads out of source_dir by '..'")
    if pattern.startswith("/"):
        return ["/", *elements]  # no relative path begins with `/`: the pattern selects nothing
    return elements or [_ANY if pattern else ""]


def _expand(pattern: str, whole: str) -> Iterator[str]:
    """Yield the brace-free patterns that this one stands for."""
    opening = next((at for at, letter in _plain(pattern) if letter == "{"), None)
    if opening is None:
        yield pattern
        return
    depth, start, options, end = 0, opening + 1, [], -1
    for at, letter in _plain(pattern):
        if at < opening:
            continue
        if letter == "{":
            depth += 1
        elif letter == "}":
            depth -= 1
            if depth == 0:
                end = at
                break
        elif letter == "," and depth == 1:
            options.append(pattern[start:at])
            start = at + 1
    if end < 0:
        raise _malformed(whole, "a '{' is not closed")
    for option in (*options, pattern[start:end]):
        yield from _expand(pattern[:opening] + option + pattern[end + 1 :], whole)


def _plain(pattern: str) -> Iterator[tuple[int, str]]:
    """Yield the characters outside escapes and classes, with their positions."""
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            at += 2
            continue
        if letter == "[" and (end := _class_end(pattern, at)) > 0:
            at = end
            continue
        yield at, letter
        at += 1


def _class_end(pattern: str, at: int) -> int:
    """Return the position after the `]` of the class that begins here; -1 without one."""
    inside = at + 1
    if pattern[inside : inside + 1] in ("^", "!"):
        inside += 1
    first = inside
    while inside < len(pattern):
        if pattern[inside] == "\\":
            inside += 2
            continue
        if pattern[inside] == "]" and inside > first:
            return inside + 1
        inside += 1
    return -1


def _translate(element: str, whole: str) -> str:
    """Translate one element into an RE2 expression; leave `**` as it is."""
    if element == _ANY:
        return _ANY
    expression, at = [], 0
    while at < len(element):
        letter, at = element[at], at + 1
        if letter == "*":
            if element[at : at + 1] != "*":
                expression.append("[^/]*")
        elif letter == "?":
            expression.append("[^/]")
        elif letter == "[":
            end = _class_end(element, at - 1)
            if end < 0:
                raise _malformed(whole, "a '[' is not closed")
            expression.append(_class(element[at : end - 1], whole))
            at = end
        elif letter == "\\":
            if at == len(element):
                raise _malformed(whole, "nothing follows the last '\\'")
            expression.append(_literal(element[at]))
            at += 1
        else:
            expression.append(_literal(letter))
    return "".join(expression)


def _literal(letter: str) -> str:
    return _NEVER if letter == "/" else f"\\x{{{ord(letter):x}}}"


def _class(inside: str, whole: str) -> str:
    """Return the RE2 class of a glob's class, without `/`, which a class cannot match."""
    negated = inside[0] in "^!"
    letters, at, ranges = inside[1:] if negated else inside, 0, []

    def one() -> str:
        nonlocal at
        if letters[at] == "\\":
            at += 1
        at += 1
        if at > len(letters):
            raise _malformed(whole, "nothing follows a '\\'")
        return letters[at - 1]

    while at < len(letters):
        low = high = one()
        if letters[at : at + 1] == "-" and at + 1 < len(letters):
            at += 1
            high = one()
            if low > high:
                raise _malformed(whole, f"the range {low}-{high} is empty")
        ranges.append((ord(low), ord(high)))
    if negated:
        return f"[^/{_ranges(ranges)}]"
    slash = ord("/")
    without = [part for low, high in ranges for part in ((low, min(high, slash - 1)), (max(low, slash + 1), high))]
    positive = _ranges([(low, high) for low, high in without if low <= high])
    return f"[{positive}]" if positive else _NEVER


def _ranges(ranges: Sequence[tuple[int, int]]) -> str:
    return "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in ranges)


def _malformed(pattern: str, why: str) -> BadRequestError:
    return BadRequestError(f"{pattern[:200]!r} is not a pattern of paths: {why}", code="invalidPattern")
