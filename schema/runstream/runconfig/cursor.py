"""A place in a configuration file that knows its path, and reads what should stand there.

Every reader reports what is wrong and goes on with a harmless value, so that one pass finds every problem.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass

from runstream.names import name_problem
from runstream.runconfig.fields import NAMES, FieldTable
from runstream.runconfig.nodes import Mapping, Node, Scalar, Sequence, describe, is_true, to_int
from runstream.runconfig.problems import MAX_UNKNOWN, Problems, nearest, shown

_YES = frozenset(("yes", "on", "y"))
_NO = frozenset(("no", "off", "n"))
_INT64 = 1 << 63
Words = AnyMapping[str, str]
NO_WORDS: Words = {}


@dataclass(frozen=True, slots=True)
class Cursor:
    """One node, where it is, and where problems go."""

    node: Node
    path: str
    problems: Problems
    line: int
    """Where a user looks for it: the line of its key, or of its entry in a list."""

    def wrong(self, message: str, hint: str = "") -> None:
        """Report a problem here."""
        self.problems.add(self.path, self.line, message, hint)

    @property
    def is_null(self) -> bool:
        """Whether nothing stands here."""
        return isinstance(self.node, Scalar) and self.node.kind == "null"

    def text(self) -> str:
        """A text; a number or a boolean stands for the text that it is written as."""
        if isinstance(self.node, Scalar) and self.node.kind != "null":
            return self.node.text
        self.wrong(f"expected a text, found {describe(self.node)}")
        return ""

    def strict_text(self) -> str | None:
        """A text that is written as one; None (and a problem) for anything else."""
        if isinstance(self.node, Scalar) and self.node.kind == "str":
            return self.node.text
        hint = "put it in quotes" if isinstance(self.node, Scalar) and self.node.kind != "null" else ""
        self.wrong(f"expected a text, found {describe(self.node)}", hint)
        return None

    def flag(self) -> bool:
        """A boolean; the words that YAML 1.1 knew (yes, no, on, off, y, n) are understood here."""
        if isinstance(self.node, Scalar):
            if self.node.kind == "bool":
                return is_true(self.node.text)
            word = self.node.text.lower() if self.node.plain else ""
            if word in _YES or word in _NO:
                return word in _YES
        self.wrong(f"expected true or false, found {describe(self.node)}")
        return False

    def whole_number(self) -> int:
        """An integer that fits into 64 bits; programs may make it as 1.0."""
        if isinstance(self.node, Scalar) and self.node.kind in ("int", "float") and len(self.node.text) <= 64:
            number = to_int(self.node.text) if self.node.kind == "int" else float(self.node.text)
            if -_INT64 <= number < _INT64 and number == int(number):
                return int(number)
        self.wrong(f"expected a whole number, found {describe(self.node)}")
        return 0

    def items(self) -> Iterator[Cursor]:
        """The entries of a list."""
        if not isinstance(self.node, Sequence):
            self.wrong(f"expected a list, found {describe(self.node)}")
            return
        for index, item in enumerate(self.node.items):
            yield Cursor(item, f"{self.path}[{index}]", self.problems, item.line)

    def require_shown(self, name: str, what: str) -> None:
        """Report a name that cannot be shown: it has control characters, or only blanks."""
        if problem := name_problem(name):
            self.wrong(f"{what} {shown(name)} {problem}", "use letters that can be seen, on one line")

    def entries(self) -> Iterator[tuple[str, Cursor]]:
        """The keys and values of a map whose keys are the user's."""
        if not isinstance(self.node, Mapping):
            self.wrong(f"expected a map, found {describe(self.node)}")
            return
        for key in self.node.entries:
            yield key, self.at(self.node, key)

    def at(self, mapping: Mapping, key: str) -> Cursor:
        """The value of a key."""
        plain = key.replace("_", "").replace("-", "").isalnum() and len(key) <= 100
        path = (f"{self.path}.{key}" if self.path else key) if plain else f"{self.path}[{shown(key)}]"
        return Cursor(mapping.entries[key], path, self.problems, mapping.lines[key])

    def warn(self, message: str, hint: str = "") -> None:
        """Report something here that means nothing, and is no mistake for certain."""
        self.problems.warn(self.path, self.line, message, hint)

    def fields(
        self, known: FieldTable, *, strict: bool = False, ignored: Collection[str] = (), foreign: Words = NO_WORDS
    ) -> Fields:
        """The fields of a map whose keys are ours, matched without case.

        An unknown one that is nearly a known one is a problem; any other is, too, when `strict`, else a warning.
        """
        if not isinstance(self.node, Mapping):
            self.wrong(f"expected a map, found {describe(self.node)}")
            return Fields(self, {})
        found: dict[str, Cursor] = {}
        for key in self.node.entries:
            name, place = key.lower(), self.at(self.node, key)
            if name in found:
                place.wrong(f"field {shown(name)} is given twice", "fields differ in more than case")
            elif name in known:
                found[name] = place
            elif key in foreign:
                place.foreign(key, foreign, known, strict=strict)
            elif name not in ignored:
                place.unknown(key, known, strict=strict)
        return Fields(self, {name: place for name, place in found.items() if not place.is_null})

    def foreign(self, key: str, words: Words, known: FieldTable, *, strict: bool) -> None:
        """Report a word of another CI system, with ours; in a file for Agola it is what any unknown field is."""
        lenient = self.problems.lenient and not strict and not self.problems.slips.of(key, tuple(known))
        report = self.warn if lenient else self.wrong
        report(foreign_word(key), words[key])

    def unknown(self, key: str, known: FieldTable, *, strict: bool) -> None:
        """Report the field here, which is not known."""
        slip = self.problems.slips.of(key, tuple(known))
        if slip is None:
            self.wrong(f"more than {MAX_UNKNOWN} different fields are unknown", "this is no configuration of ours")
        elif slip or strict:
            self.wrong(f"unknown field {shown(key)}", "" if self.problems.full else nearest(key, known))
        else:
            hint = "" if self.problems.warned_enough else nearest(key, known)
            self.warn(f"unknown field {shown(key)} is ignored", hint)


def foreign_word(key: str) -> str:
    """Return what is wrong with a word of another CI system, which may be one of ours in the wrong place."""
    if key in NAMES:
        return f"unknown field {shown(key)} here"
    return f"unknown field {shown(key)}, a word of another CI system"


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields that a map has; those that are null are as if they were not there."""

    place: Cursor
    found: dict[str, Cursor]

    def get(self, name: str) -> Cursor | None:
        """Where the field is, if it is there."""
        return self.found.get(name)

    def text(self, name: str, default: str = "") -> str:
        """The field's text."""
        place = self.found.get(name)
        return default if place is None else place.text()

    def strict_text(self, name: str) -> str:
        """The field's text, where numbers and booleans do not count as one."""
        place = self.found.get(name)
        return "" if place is None else place.strict_text() or ""

    def flag(self, name: str, *, default: bool = False) -> bool:
        """The field's boolean."""
        place = self.found.get(name)
        return default if place is None else place.flag()

    def texts(self, name: str) -> tuple[str, ...]:
        """The field's list of texts."""
        return tuple(item.text() for item in self.items(name))

    def strict_texts(self, name: str) -> tuple[str, ...]:
        """The field's list of texts, where numbers and booleans do not count as one."""
        return tuple(item.strict_text() or "" for item in self.items(name))

    def items(self, name: str) -> Iterator[Cursor]:
        """The entries of the field's list; none when it is not there."""
        place = self.found.get(name)
        return iter(()) if place is None else place.items()
