"""For which branches, tags and refs a run or a task is meant (rules config-10 and config-11)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.fields import PATTERNS, WHEN
from runstream.runconfig.foreign import FOREIGN_PATTERNS, FOREIGN_WHEN, FOREIGN_WHEN_TEXTS
from runstream.runconfig.nodes import Mapping, Scalar, Sequence, describe
from runstream.runconfig.patterns import MAX_EXPRESSIONS, PatternError, check_pattern, searches
from runstream.runconfig.problems import shown

RefType = Literal["", "branch", "tag", "pull_request"]
_DELIMITERS = ("/", "#")


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a name is compared with: literally, or by an unanchored RE2 search."""

    text: str
    kind: Literal["simple", "regexp"] = "simple"

    def matches(self, name: str) -> bool:
        """Whether the name is meant."""
        return self.text == name if self.kind == "simple" else searches(self.text, name)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Included names; excluded names among them."""

    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()


@dataclass(frozen=True, slots=True)
class When:
    """Conditions on the branch, the tag and the full ref."""

    branch: Conditions | None = None
    tag: Conditions | None = None
    ref: Conditions | None = None


def match_when(when: When | None, ref_type: str, branch: str, tag: str, ref: str) -> bool:
    """Whether a run of this ref is meant. Later sections override earlier ones; `{}` never matches, None always."""
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
    """The field `when`; None when it is not there."""
    place = fields.get("when")
    if place is None:
        return None
    if isinstance(place.node, Scalar) and place.node.text in FOREIGN_WHEN_TEXTS:
        place.wrong(f"expected a map, found {describe(place.node)}", FOREIGN_WHEN_TEXTS[place.node.text])
        return None
    before = len(place.problems), len(place.problems.warnings)
    sections = place.fields(WHEN, foreign=FOREIGN_WHEN)
    when = When(*(_conditions(sections.get(name)) for name in ("branch", "tag", "ref")))
    told = before != (len(place.problems), len(place.problems.warnings))
    if not told and not any(one.include for one in (when.branch, when.tag, when.ref) if one is not None):
        place.warn("this `when` can never match", "name a branch, tag or ref, or leave `when` out")
    return when


def _conditions(place: Cursor | None) -> Conditions | None:
    if place is None:
        return None
    match place.node:
        case Mapping():
            fields = place.fields(PATTERNS, strict=True, foreign=FOREIGN_PATTERNS)
            return Conditions(_listed(fields.get("include")), _listed(fields.get("exclude")))
        case _:
            return Conditions(_patterns(place))


def _listed(place: Cursor | None) -> tuple[Pattern, ...]:
    """What is included or excluded; a number or a boolean, which the format takes for an empty list, is pointed at."""
    if place is not None and isinstance(place.node, Scalar) and place.node.kind != "str":
        place.warn(f"{describe(place.node)} is no pattern and matches nothing", "put it in quotes")
        return ()
    return () if place is None else _patterns(place)


def _patterns(place: Cursor) -> tuple[Pattern, ...]:
    match place.node:
        case Sequence():
            return tuple(_pattern(item) for item in place.items())
        case Scalar(kind="str"):
            return (_pattern(place),)
        case node:
            place.wrong(f"expected a text or a list of texts, found {describe(node)}", "put it in quotes")
            return ()


def _pattern(place: Cursor) -> Pattern:
    text = place.strict_text() or ""
    if len(text) <= 2 or text[0] not in _DELIMITERS or text[-1] != text[0]:
        if "*" in text:
            expression = ".*".join(map(re.escape, re.split(r"\*+", text)))
            place.warn(
                f"{shown(text)} is compared as it is, * included",
                f"a pattern stands between slashes: {shown(f'/^{expression}$/')}",
            )
        return Pattern(text)
    if wrong := _wrong_with(text[1:-1], place.problems.expressions):
        place.wrong(wrong, "the syntax is RE2's")
    return Pattern(text[1:-1], "regexp")


def _wrong_with(expression: str, met: dict[str, str]) -> str:
    """Each expression is compiled once, and only so many: each costs time and memory."""
    if len(met) == MAX_EXPRESSIONS and expression not in met:
        return f"more than {MAX_EXPRESSIONS} different regular expressions in one file"
    if expression not in met:
        try:
            check_pattern(expression)
            met[expression] = ""
        except PatternError as error:
            met[expression] = f"not a regular expression: {error}"
    return met[expression]
