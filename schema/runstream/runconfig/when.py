"""For which branches, tags and refs a run or a task is meant (rules config-10 and config-11).

Regular expressions are RE2, which matches any expression in linear time. Their number in a file, their length and the
memory of each are bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, cast

from runstream.expressions import expression_fault
from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.fields import PATTERNS, WHEN
from runstream.runconfig.foreign import FOREIGN_PATTERNS, FOREIGN_WHEN, FOREIGN_WHEN_TEXTS
from runstream.runconfig.nodes import MappingNode, ScalarNode, SequenceNode, describe
from runstream.runconfig.problems import quoted

RefType = Literal["", "branch", "tag", "pull_request"]
MAX_EXPRESSIONS = 100
"""Different regular expressions of one file."""
_MAX_EXPRESSION_BYTES = 4096
_MAX_EXPRESSION_MEMORY = 256 << 10
"""Bytes of one compiled expression."""
_DELIMITERS = ("/", "#")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A name, or a regular expression that is searched for in a name."""

    text: str
    kind: Literal["simple", "regexp"] = "simple"

    def matches(self, name: str) -> bool:
        """Return whether the name matches."""
        return self.text == name if self.kind == "simple" else _searches(self.text, name)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Patterns of included names, and of names excluded from these."""

    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()


@dataclass(frozen=True, slots=True)
class When:
    """Conditions on the branch, the tag and the full ref."""

    branch: Conditions | None = None
    tag: Conditions | None = None
    ref: Conditions | None = None


def match_when(when: When | None, ref_type: str, branch: str, tag: str, ref: str) -> bool:
    """Return whether a ref matches. Later sections override earlier ones; `{}` never matches, None always does."""
    if when is None:
        return True
    matched = False
    if ref_type == "branch" and when.branch is not None and branch:
        matched = _decide(when.branch, branch, matched=matched)
    if ref_type == "tag" and when.tag is not None and tag:
        matched = _decide(when.tag, tag, matched=matched)
    if when.ref is not None:
        matched = _decide(when.ref, ref, matched=matched)
    return matched


def _decide(conditions: Conditions, name: str, *, matched: bool) -> bool:
    if any(pattern.matches(name) for pattern in conditions.include):
        matched = True
    if any(pattern.matches(name) for pattern in conditions.exclude):
        matched = False
    return matched


def decode_when(fields: Fields) -> When | None:
    """Decode the field `when`."""
    place = fields.get("when")
    if place is None:
        return None
    if isinstance(place.node, ScalarNode) and place.node.text in FOREIGN_WHEN_TEXTS:
        place.error(f"expected a map, found {describe(place.node)}", FOREIGN_WHEN_TEXTS[place.node.text])
        return None
    before = len(place.problems), len(place.problems.warnings)
    sections = place.fields(WHEN, foreign=FOREIGN_WHEN)
    when = When(*(_conditions(sections.get(name)) for name in ("branch", "tag", "ref")))
    reported = before != (len(place.problems), len(place.problems.warnings))
    if not reported and not any(one.include for one in (when.branch, when.tag, when.ref) if one is not None):
        place.warn("this `when` can never match", "name a branch, tag or ref, or leave `when` out")
    return when


def _conditions(place: Cursor | None) -> Conditions | None:
    if place is None:
        return None
    if not isinstance(place.node, MappingNode):
        return Conditions(_patterns(place))
    fields = place.fields(PATTERNS, strict=True, foreign=FOREIGN_PATTERNS)
    return Conditions(_listed(fields.get("include")), _listed(fields.get("exclude")))


def _listed(place: Cursor | None) -> tuple[Pattern, ...]:
    """Decode included or excluded names. The format takes a number or a boolean for an empty list: warn of these."""
    if place is not None and isinstance(place.node, ScalarNode) and place.node.kind != "str":
        place.warn(f"{describe(place.node)} is not a pattern and never matches", "put it in quotes")
        return ()
    return () if place is None else _patterns(place)


def _patterns(place: Cursor) -> tuple[Pattern, ...]:
    match place.node:
        case SequenceNode():
            return tuple(_pattern(item) for item in place.items())
        case ScalarNode(kind="str"):
            return (_pattern(place),)
        case node:
            place.error(f"expected a text or a list of texts, found {describe(node)}", "put it in quotes")
            return ()


def _pattern(place: Cursor) -> Pattern:
    text = place.strict_text() or ""
    if len(text) <= 2 or text[0] not in _DELIMITERS or text[-1] != text[0]:
        if "*" in text:
            expression = ".*".join(map(re.escape, re.split(r"\*+", text)))
            place.warn(
                f"{quoted(text)} is compared as it is, * included",
                f"write a pattern between slashes: {quoted(f'/^{expression}$/')}",
            )
        return Pattern(text)
    if problem := _expression_problem(text[1:-1], place.problems.expressions):
        place.error(problem, "the syntax is RE2's")
    return Pattern(text[1:-1], "regexp")


def expression_problem(expression: str) -> str:
    """Return the error of an expression outside of a file; empty for a valid one."""
    return _expression_problem(expression, {})


def _expression_problem(expression: str, checked: dict[str, str]) -> str:
    """Return the error of an expression; empty for a valid one. Compiles each expression of a file once."""
    if len(checked) == MAX_EXPRESSIONS and expression not in checked:
        return f"more than {MAX_EXPRESSIONS} different regular expressions in one file"
    if expression not in checked:
        try:
            if len(expression.encode()) > _MAX_EXPRESSION_BYTES:
                raise ValueError(f"longer than {_MAX_EXPRESSION_BYTES} bytes")
            _compiled(expression)
            checked[expression] = ""
        except ValueError as error:
            checked[expression] = f"not a regular expression: {error}"
    return checked[expression]


class Expression(Protocol):
    """A compiled RE2 expression."""

    def search(self, text: str) -> object | None:
        """Return a match anywhere in the text."""

    def fullmatch(self, text: bytes) -> object | None:
        """Return a match of the whole text, in UTF-8."""


@lru_cache(maxsize=1024)
def _searches(expression: str, text: str) -> bool:
    return _compiled(expression).search(text) is not None


@lru_cache(maxsize=MAX_EXPRESSIONS)
def _compiled(expression: str) -> Expression:
    return compile_expression(expression, _MAX_EXPRESSION_MEMORY)


def compile_expression(expression: str, max_memory: int) -> Expression:
    """Compile an RE2 expression of at most `max_memory` bytes. Raise ValueError with RE2's reason."""
    import re2  # type: ignore[import-untyped]  # not at the top: most files have no expression

    options = re2.Options()
    options.log_errors = False
    options.max_mem = max_memory
    try:
        return cast("Expression", re2.compile(expression, options))
    except re2.error as error:
        raise ValueError(expression_fault(error, expression)) from error
