"""A place in a configuration that knows its path, and readers of the values that may stand there.

Each reader reports a wrong value and goes on with a harmless one, so that one pass finds every problem.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from runstream.names import name_problem
from runstream.runconfig.amounts import UNITS, parse_duration, parse_processors, parse_quantity, within_int64
from runstream.runconfig.fields import NAMES, FieldTable
from runstream.runconfig.nodes import MappingNode, Node, ScalarNode, SequenceNode, describe, is_true, to_int
from runstream.runconfig.problems import IGNORED, MAX_UNKNOWN, ConfigProblems, quoted, suggestion

_YES = frozenset(("yes", "on", "y"))
_NO = frozenset(("no", "off", "n"))
_INT64 = 1 << 63
_MAX_DIGITS = 64
T = TypeVar("T", bound=str)
Words = Mapping[str, str]
"""Words of other CI systems, each with a hint."""
NO_WORDS: Words = {}


@dataclass(frozen=True, slots=True)
class Cursor:
    """A node and its place in the file."""

    node: Node
    path: str
    problems: ConfigProblems
    line: int
    """The line of its key, or of its entry in a list: where a user looks for it."""

    def error(self, message: str, hint: str = "") -> None:
        """Report a problem here."""
        self.problems.add(self.path, self.line, message, hint)

    def warn(self, message: str, hint: str = "") -> None:
        """Report a warning here: something without effect that may be intended."""
        self.problems.warn(self.path, self.line, message, hint)

    @property
    def is_null(self) -> bool:
        """True if the value is null, or missing."""
        return isinstance(self.node, ScalarNode) and self.node.kind == "null"

    def text(self) -> str:
        """Return a text; a number or a boolean counts as its spelling."""
        if isinstance(self.node, ScalarNode) and self.node.kind != "null":
            return self.node.text
        self.error(f"expected a text, found {describe(self.node)}")
        return ""

    def strict_text(self) -> str | None:
        """Return a text; None, and a problem, for anything else, numbers and booleans included."""
        if isinstance(self.node, ScalarNode) and self.node.kind == "str":
            return self.node.text
        hint = "put it in quotes" if isinstance(self.node, ScalarNode) and self.node.kind != "null" else ""
        self.error(f"expected a text, found {describe(self.node)}", hint)
        return None

    def flag(self) -> bool:
        """Return a boolean; the words of YAML 1.1 (yes, no, on, off, y, n) count as well."""
        if isinstance(self.node, ScalarNode):
            if self.node.kind == "bool":
                return is_true(self.node.text)
            word = self.node.text.lower() if self.node.plain else ""
            if word in _YES or word in _NO:
                return word in _YES
        self.error(f"expected true or false, found {describe(self.node)}")
        return False

    def whole_number(self) -> int:
        """Return an integer of at most 64 bits; 1.0 is one, because programs print integers so."""
        if (
            isinstance(self.node, ScalarNode)
            and self.node.kind in ("int", "float")
            and len(self.node.text) <= _MAX_DIGITS
        ):
            number = to_int(self.node.text) if self.node.kind == "int" else float(self.node.text)
            if -_INT64 <= number < _INT64 and number == int(number):
                return int(number)
        self.error(f"expected a whole number, found {describe(self.node)}")
        return 0

    def one_of(self, known: Sequence[T], what: str) -> T | None:
        """Return the known text that stands here; None, and a problem, for anything else."""
        text = self.strict_text()
        found = next((one for one in known if one == text), None)
        if found is None and text is not None:
            self.error(f"unknown {what} {quoted(text)}", suggestion(text, known))
        return found

    def duration(self) -> int | None:
        """Return nanoseconds, of a text such as 1h30m or a number; None, and a problem, for anything else."""
        try:
            match self.node:
                case ScalarNode(kind="str", text=text):
                    return self._warn_if_short(text, parse_duration(text))
                case ScalarNode(kind="int" | "float", text=text):
                    return self._warn_if_short(text, within_int64(_nanoseconds(self.node)))
                case node:
                    self.error(f"expected a duration, found {describe(node)}", "such as 1h30m")
        except ValueError as error:
            self.error(str(error), "such as 1h30m, or a number of nanoseconds")
        return None

    def _warn_if_short(self, text: str, nanoseconds: int) -> int:
        """Warn of a duration below a second: 60 easily passes for 60 seconds."""
        if 0 < abs(nanoseconds) < UNITS["s"]:
            bare = text.lstrip("+-").isdigit()
            means = f"{nanoseconds} nanoseconds" if bare else "less than a second"
            self.warn(f"{text[:40]} is {means}", f"for seconds write {text[:40]}s" if bare else "0 for none")
        return nanoseconds

    def size(self) -> int:
        """Return bytes, of an amount such as 1Gi."""
        if not isinstance(self.node, ScalarNode) or self.node.kind == "bool":
            self.error(f"expected an amount of bytes, found {describe(self.node)}", "such as 1Gi or 512M")
            return 0
        try:
            return parse_quantity(self.node.text)
        except ValueError as error:
            self.error(str(error), "such as 1Gi or 512M")
            return 0

    def processors(self) -> int:
        """Return thousandths of a processor, of a number such as 0.5."""
        if not isinstance(self.node, ScalarNode) or self.node.kind == "bool":
            self.error(f"expected a number of processors, found {describe(self.node)}", "such as 2, 0.5 or 500m")
            return 0
        try:
            return parse_processors(self.node.text)
        except ValueError as error:
            self.error(str(error), "such as 2, 0.5 or 500m")
            return 0

    def items(self) -> Iterator[Cursor]:
        """Yield the entries of a list."""
        if not isinstance(self.node, SequenceNode):
            self.error(f"expected a list, found {describe(self.node)}")
            return
        for index, item in enumerate(self.node.items):
            yield Cursor(item, f"{self.path}[{index}]", self.problems, item.line)

    def entries(self) -> Iterator[tuple[str, Cursor]]:
        """Yield the keys and values of a map whose keys are the user's."""
        if not isinstance(self.node, MappingNode):
            self.error(f"expected a map, found {describe(self.node)}")
            return
        for key in self.node.entries:
            yield key, self.at(self.node, key)

    def at(self, mapping: MappingNode, key: str) -> Cursor:
        """Return the value of a key of this place's map."""
        plain = key.replace("_", "").replace("-", "").isalnum() and len(key) <= 100
        path = (f"{self.path}.{key}" if self.path else key) if plain else f"{self.path}[{quoted(key)}]"
        return Cursor(mapping.entries[key], path, self.problems, mapping.lines[key])

    def nearest(self, *keys: str | int) -> Cursor:
        """Return the field that these names and indexes lead to, or the last one on the way that is given."""
        place = self
        for key in keys:
            match place.node, key:
                case MappingNode(entries=entries) as node, str():
                    named = (place.at(node, name) for name in entries if name.lower() == key)
                    found = next((one for one in named if not one.is_null), None)
                case SequenceNode(items=items), int() if key < len(items):
                    found = Cursor(items[key], f"{place.path}[{key}]", self.problems, items[key].line)
                case _:
                    found = None
            if found is None:
                return place
            place = found
        return place

    def fields(
        self, known: FieldTable, *, strict: bool = False, ignored: Collection[str] = (), foreign: Words = NO_WORDS
    ) -> Fields:
        """Return the fields of a map whose keys are the format's; their case does not matter.

        An unknown key is a problem if it is a typo of a known field, or if `strict`; else a warning.
        """
        if not isinstance(self.node, MappingNode):
            self.error(f"expected a map, found {describe(self.node)}")
            return Fields(self, {})
        found: dict[str, Cursor] = {}
        for key in self.node.entries:
            name, place = key.lower(), self.at(self.node, key)
            if name in found:
                place.error(f"field {quoted(name)} is given twice", "the case of a field's name does not matter")
            elif name in known:
                found[name] = place
            elif key in foreign:
                place.report_foreign(key, foreign[key], known, strict=strict)
            elif name not in ignored:
                place.report_unknown(key, known, strict=strict)
        return Fields(self, {name: place for name, place in found.items() if not place.is_null})

    def report_foreign(self, key: str, hint: str, known: FieldTable, *, strict: bool) -> None:
        """Report a word of another CI system; in a file for Agola it is an unknown field like any other."""
        lenient = self.problems.lenient and not strict and not self.problems.typos.of(key, tuple(known))
        report = self.warn if lenient else self.error
        report(foreign_word(key), hint)

    def report_unknown(self, key: str, known: FieldTable, *, strict: bool) -> None:
        """Report an unknown key: as a problem if it is a typo of a known field, or if `strict`; else as a warning."""
        typo = self.problems.typos.of(key, tuple(known))
        if typo is None:
            self.error(f"more than {MAX_UNKNOWN} different fields are unknown", "this is not a Runstream configuration")
        elif typo or strict:
            self.error(f"unknown field {quoted(key)}", "" if self.problems.full else suggestion(key, known))
        else:
            hint = "" if self.problems.warnings_full else suggestion(key, known)
            self.warn(f"unknown field {quoted(key)}{IGNORED}", hint)

    def require_printable(self, name: str, what: str) -> None:
        """Report a name that has control characters, or only blanks."""
        if problem := name_problem(name):
            self.error(f"{what} {quoted(name)} {problem}", "use visible characters, on one line")


def foreign_word(key: str) -> str:
    """Return the message for a word of another CI system, which may be a field of ours in the wrong place."""
    if key in NAMES:
        return f"unknown field {quoted(key)} here"
    return f"unknown field {quoted(key)}, a word of another CI system"


def _nanoseconds(node: ScalarNode) -> int:
    """Return a number without its fraction."""
    if node.kind == "int" and len(node.text) <= _MAX_DIGITS:
        return to_int(node.text)
    try:
        return int(float(node.text))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{node.text[:40]} is not a duration") from error


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a map. A field that is null is missing; its readers return a default."""

    place: Cursor
    found: dict[str, Cursor]

    def get(self, name: str) -> Cursor | None:
        """Return the place of a field, if the map has it."""
        return self.found.get(name)

    def text(self, name: str, default: str = "") -> str:
        """Return a field's text."""
        place = self.found.get(name)
        return default if place is None else place.text()

    def strict_text(self, name: str) -> str:
        """Return a field's text; a number or a boolean is a problem."""
        place = self.found.get(name)
        return "" if place is None else place.strict_text() or ""

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a field's boolean."""
        place = self.found.get(name)
        return default if place is None else place.flag()

    def duration(self, name: str) -> int | None:
        """Return a field's duration in nanoseconds, which may be negative."""
        place = self.found.get(name)
        return None if place is None else place.duration()

    def limit(self, name: str) -> int | None:
        """Return a field's duration in nanoseconds; 0 is no limit, a negative one a problem."""
        limit = self.duration(name)
        if limit is not None and limit < 0:
            self.found[name].error("the duration is negative", "0 for no limit")
            return None
        return limit

    def size(self, name: str) -> int:
        """Return a field's amount of bytes."""
        place = self.found.get(name)
        return 0 if place is None else place.size()

    def processors(self, name: str) -> int:
        """Return a field's number of processors, in thousandths."""
        place = self.found.get(name)
        return 0 if place is None else place.processors()

    def items(self, name: str) -> Iterator[Cursor]:
        """Return the entries of a field's list."""
        place = self.found.get(name)
        return iter(()) if place is None else place.items()

    def strict_texts(self, name: str) -> tuple[str, ...]:
        """Return a field's list of texts; a number or a boolean is a problem."""
        return tuple(item.strict_text() or "" for item in self.items(name))
