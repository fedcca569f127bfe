"""Which paths a pattern selects (rule step-21): `**`, `*`, `?`, `[abc]`, `[^a-z]`, `{a,b}` and `\\` before any of them.

`**` as a whole element stands for any number of elements, none included; nothing else crosses a `/`.
Matching takes polynomial time, whatever the pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from runstream.errors import BadRequestError

_MAX_ALTERNATIVES = 1000
_MAX_BRACES = 50
_ANY: Final = None
_Element = re.Pattern[str] | None
"""None stands for `**`."""


State = tuple[frozenset[int], ...]
"""For each alternative of a pattern, the elements that may come next; the number of elements is the end."""


class Glob:
    """A pattern, ready to be matched against paths or, name by name, against a tree."""

    def __init__(self, pattern: str) -> None:
        """Raises BadRequestError for a malformed pattern."""
        if pattern.count("{") > _MAX_BRACES:
            raise _bad(pattern, f"it has more than {_MAX_BRACES} braces")
        self._alternatives: list[tuple[_Element, ...]] = []
        for alternative in _expand(pattern, pattern):
            if len(self._alternatives) == _MAX_ALTERNATIVES:
                raise _bad(pattern, f"it has more than {_MAX_ALTERNATIVES} alternatives")
            self._alternatives.append(tuple(_element(part, pattern) for part in _parts(alternative, pattern)))
        self.start: State = tuple(_closed(elements, {0}) for elements in self._alternatives)
        """The state at the folder that paths are relative to."""

    def after(self, state: State, name: str) -> State:
        """Return the state one level below, at this name."""
        return tuple(
            _closed(elements, _stepped(elements, reached, name))
            for elements, reached in zip(self._alternatives, state, strict=True)
        )

    def selects(self, state: State) -> bool:
        """Whether the pattern selects the path that led to this state."""
        return any(len(elements) in reached for elements, reached in zip(self._alternatives, state, strict=True))

    def goes_on(self, state: State) -> bool:
        """Whether the pattern may select something below."""
        return any(
            next(iter(sorted(reached)), len(elements)) < len(elements)
            for elements, reached in zip(self._alternatives, state, strict=True)
        )

    def matches(self, path: str) -> bool:
        """Whether the pattern selects this relative path."""
        state = self.start
        for name in path.split("/"):
            state = self.after(state, name)
        return self.selects(state)


def _stepped(elements: Sequence[_Element], reached: frozenset[int], name: str) -> set[int]:
    found = set()
    for at in reached:
        if at < len(elements):
            element = elements[at]
            if element is _ANY:
                found.add(at)
            elif element.fullmatch(name):
                found.add(at + 1)
    return found


def _closed(elements: Sequence[_Element], reached: set[int]) -> frozenset[int]:
    """Return the elements with those behind a `**`, which may stand for nothing."""
    for at in sorted(reached):
        behind = at
        while behind < len(elements) and elements[behind] is _ANY:
            behind += 1
            reached.add(behind)
    return frozenset(reached)


def _parts(pattern: str, whole: str) -> list[str]:
    """Return the elements of a pattern: `./dist//x/` is `dist/x`, and `.` is all."""
    parts = [part for part in _split(pattern) if part not in ("", ".")]
    if ".." in parts:
        raise _bad(whole, "it leads out of source_dir by '..'")
    if pattern.startswith("/"):
        return ["", *parts]  # no relative path begins so: it selects nothing
    return parts or ["**" if pattern else ""]


def _expand(pattern: str, whole: str) -> Iterator[str]:
    """The patterns without braces that this one stands for."""
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
        raise _bad(whole, "a '{' is not closed")
    for option in (*options, pattern[start:end]):
        yield from _expand(pattern[:opening] + option + pattern[end + 1 :], whole)


def _plain(pattern: str) -> Iterator[tuple[int, str]]:
    """The letters that are neither escaped nor in a class, with where they are."""
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            at += 2
            continue
        if letter == "[":
            end = _class_end(pattern, at)
            if end > 0:
                at = end
                continue
        yield at, letter
        at += 1


def _split(pattern: str) -> list[str]:
    cuts = [at for at, letter in _plain(pattern) if letter == "/"]
    return [pattern[a + 1 : b] for a, b in zip([-1, *cuts], [*cuts, len(pattern)], strict=True)]


def _class_end(pattern: str, at: int) -> int:
    """Behind the `]` of the class that begins here; -1 when there is none."""
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


@lru_cache(maxsize=1024)
def _element(part: str, whole: str) -> _Element:
    if part == "**":
        return _ANY
    # Each `*` takes the shortest text up to the next piece and never gives it back, so no match explodes.
    expression, starred, at = [], False, 0
    while at < len(part):
        letter = part[at]
        if letter == "*":
            if starred:
                expression.append(")")
            expression.append("(?>.*?")
            starred = True
            while part[at : at + 1] == "*":
                at += 1
            continue
        text, at = _one(part, at, whole)
        expression.append(text)
    if starred:
        # The last piece is not atomic: it has to reach the end.
        opening = len(expression) - 1 - expression[::-1].index("(?>.*?")
        expression[opening] = "(?:.*"
        expression.append(")")
    return re.compile("".join(expression), re.DOTALL)


def _one(part: str, at: int, whole: str) -> tuple[str, int]:
    """The expression for one letter or class, and what follows it."""
    letter = part[at]
    if letter == "\\":
        if at + 1 == len(part):
            raise _bad(whole, "nothing follows the last '\\'")
        return re.escape(part[at + 1]), at + 2
    if letter == "?":
        return ".", at + 1
    if letter == "[":
        end = _class_end(part, at)
        if end < 0:
            raise _bad(whole, "a '[' is not closed")
        return _class(part[at + 1 : end - 1], whole), end
    return re.escape(letter), at + 1


def _class(inside: str, whole: str) -> str:
    negated = inside[0] in "^!"
    letters, at, items = inside[1:] if negated else inside, 0, []

    def one() -> str:
        nonlocal at
        if letters[at] == "\\":
            at += 1
        at += 1
        if at > len(letters):
            raise _bad(whole, "nothing follows a '\\'")
        return letters[at - 1]

    while at < len(letters):
        low = one()
        if letters[at : at + 1] == "-" and at + 1 < len(letters):
            at += 1
            high = one()
            if low > high:
                raise _bad(whole, f"the range {low}-{high} is empty")
            items.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            items.append(re.escape(low))
    return f"[{'^' if negated else ''}{''.join(items)}]"


def _bad(pattern: str, why: str) -> BadRequestError:
    return BadRequestError(f"{pattern[:200]!r} is not a pattern of paths: {why}", code="invalidPattern")
