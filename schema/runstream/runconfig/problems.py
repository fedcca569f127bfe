"""What is wrong with a configuration: every problem, each with its path and line, reported together.

A path is how a user would point at it: `runs[0].tasks[2].steps[1].command`. Lines count from 1; what a program
made has none.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from runstream.errors import BadRequestError

MAX_PROBLEMS = 100
_SHOWN = 3
_NAMED = 20
"""At most so many known words are compared, or named, in a hint."""
MAX_UNKNOWN = 300
"""Different fields of one file that are not known."""
_SLIP = 0.8
"""How alike two words are, as difflib counts it, when one is taken for a slip: `step` and `steps`, not `stage`."""
_COMPARED = 100
"""Characters of a word."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where, and what to do about it."""

    path: str
    """Empty for the whole file."""
    line: int
    """0 where the file is a program: what it made has no lines that anybody sees."""
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = ", ".join(filter(None, (f"line {self.line}" if self.line else "", self.path)))
        return (f"{where}: " if where else "") + self.message + (f" ({self.hint})" if self.hint else "")


class ConfigError(BadRequestError):
    """A configuration that cannot be accepted; `problems` has everything that is wrong with it, at most 100."""

    def __init__(self, source: str, problems: Iterable[Problem], omitted: int = 0) -> None:
        self.problems = tuple(problems)
        self.source = source
        self.omitted = omitted
        shown = "; ".join(str(problem) for problem in self.problems[:_SHOWN])
        more = len(self.problems) - _SHOWN + omitted
        super().__init__(
            f"{source} is not valid: {shown}" + (f"; and {more} more" if more > 0 else ""),
            code="invalidConfig",
            details={"source": source, "problems": [asdict(problem) for problem in self.problems], "omitted": omitted},
            hint="`runstream config schema` describes every field",
        )


class Slips:
    """Tells slips of the pen from words of somebody else's; each word is compared once, and only so many are."""

    def __init__(self) -> None:
        self._met: dict[tuple[str, tuple[str, ...]], bool] = {}

    def of(self, word: str, known: tuple[str, ...]) -> bool | None:
        """Whether the word is nearly a known one; None when too many different words were met before."""
        place = (word, known)
        if place not in self._met:
            if len(self._met) == MAX_UNKNOWN:
                return None
            self._met[place] = bool(difflib.get_close_matches(word[:_COMPARED].lower(), known, n=1, cutoff=_SLIP))
        return self._met[place]


class Problems:
    """Gathers what is wrong; past the hundredth problem it only counts. Of warnings the first hundred are kept."""

    def __init__(self, *, lenient: bool = False) -> None:
        self.lenient = lenient
        """Whether words of other CI systems are only warned of."""
        self._found: list[Problem] = []
        self._omitted = 0
        self._warnings: list[Problem] = []
        self.slips = Slips()
        self.expressions: dict[str, str] = {}
        """The different regular expressions that were met, with what is wrong with each; empty when nothing is."""

    @property
    def full(self) -> bool:
        """Whether no further problem will be kept."""
        return len(self._found) >= MAX_PROBLEMS

    def __len__(self) -> int:
        return len(self._found) + self._omitted

    def add(self, path: str, line: int, message: str, hint: str = "") -> None:
        """Keep one more problem."""
        if self.full:
            self._omitted += 1
        else:
            self._found.append(Problem(path, line, message, hint))

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What means nothing, in the order of the file."""
        return tuple(sorted(self._warnings, key=lambda problem: problem.line))

    @property
    def warned_enough(self) -> bool:
        """Whether no further warning will be kept."""
        return len(self._warnings) >= MAX_PROBLEMS

    def warn(self, path: str, line: int, message: str, hint: str = "") -> None:
        """Keep one more warning."""
        if not self.warned_enough:
            self._warnings.append(Problem(path, line, message, hint))

    def raise_if_any(self, source: str) -> None:
        """Raise ConfigError with all of them, in the order of the file."""
        if self._found:
            raise ConfigError(source, sorted(self._found, key=lambda problem: problem.line), self._omitted)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word that was probably meant, or all of them (the first few of many)."""
    words = list(known)
    close = difflib.get_close_matches(word[:_COMPARED].lower(), _candidates(word, words), n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(name[:_COMPARED] for name in words[:_NAMED])}{', …' if len(words) > _NAMED else ''}"


def _candidates(word: str, words: list[str]) -> list[str]:
    """Few enough to be compared, whoever wrote them."""
    if len(words) <= _NAMED:
        return words
    alike = [name for name in words if abs(len(name) - len(word)) <= 2 and name[:2] == word[:2]]
    nearly = (name for name in alike if name.startswith(word[:-2]))
    return [name for name in itertools.islice(itertools.chain(nearly, alike), _NAMED) if len(name) <= _COMPARED]


def shown(text: str) -> str:
    """A text from outside as it is quoted in a message: in double quotes, cut, without control characters."""
    cut = text if len(text) <= 80 else f"{text[:77]}..."
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut) + '"'
