"""Problems of a configuration: all of them, each with its path and line, reported together.

A path points at a field as a user would: `runs[0].tasks[2].steps[1].command`. Lines count from 1; the output of a
program has none.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from runstream.errors import BadRequestError

MAX_PROBLEMS = 100
"""Problems, and warnings, kept of one file."""
MAX_UNKNOWN = 300
"""Different unknown fields of one file that are compared with the known ones."""
_IN_MESSAGE = 3
"""Problems quoted in the message of a ConfigError."""
_MAX_CANDIDATES = 20
"""Known words that a hint compares, or lists."""
_TYPO_SIMILARITY = 0.8
"""difflib's ratio from which a word counts as a typo of another: `step` of `steps`, but not `stage`."""
_MAX_WORD = 100
"""Characters of a word that are compared."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, its place and a way to fix it."""

    path: str
    """Empty for the whole file."""
    line: int
    """From 1; 0 for generated configuration."""
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = ", ".join(filter(None, (f"line {self.line}" if self.line else "", self.path)))
        return (f"{where}: " if where else "") + self.message + (f" ({self.hint})" if self.hint else "")


IGNORED = " is ignored"
"""The end of a warning about what has no effect; an error does not have it."""


def as_errors(warnings: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return warnings in the words of errors, for callers that refuse a file with warnings."""
    return tuple(replace(one, message=one.message.removesuffix(IGNORED)) for one in warnings)


class ConfigError(BadRequestError):
    """An invalid configuration; `problems` has its first 100 problems."""

    def __init__(self, source: str, problems: Iterable[Problem], omitted: int = 0) -> None:
        self.problems = tuple(problems)
        self.source = source
        self.omitted = omitted
        first = "; ".join(str(problem) for problem in self.problems[:_IN_MESSAGE])
        more = len(self.problems) - _IN_MESSAGE + omitted
        super().__init__(
            f"{source} is not valid: {first}" + (f"; and {more} more" if more > 0 else ""),
            code="invalidConfig",
            details={"source": source, "problems": [asdict(problem) for problem in self.problems], "omitted": omitted},
            hint="`runstream config schema` describes every field",
        )


class Typos:
    """A finder of typos of known words. It compares each word once, and a bounded number of them."""

    def __init__(self) -> None:
        self._results: dict[tuple[str, tuple[str, ...]], bool] = {}

    def of(self, word: str, known: tuple[str, ...]) -> bool | None:
        """Return whether the word is a typo of a known one; None past MAX_UNKNOWN different words."""
        key = (word, known)
        if key not in self._results:
            if len(self._results) == MAX_UNKNOWN:
                return None
            close = difflib.get_close_matches(word[:_MAX_WORD].lower(), known, n=1, cutoff=_TYPO_SIMILARITY)
            self._results[key] = bool(close)
        return self._results[key]


class ConfigProblems:
    """The problems and warnings of one file: the first hundred of each, and the number of further problems."""

    def __init__(self, *, lenient: bool = False) -> None:
        self.lenient = lenient
        """True where words of other CI systems are warnings, not problems."""
        self._found: list[Problem] = []
        self._omitted = 0
        self._warnings: list[Problem] = []
        self.typos = Typos()
        self.expressions: dict[str, str] = {}
        """The different regular expressions of the file, each with its error; empty for a valid one."""

    @property
    def full(self) -> bool:
        """True if further problems are only counted."""
        return len(self._found) >= MAX_PROBLEMS

    def __len__(self) -> int:
        return len(self._found) + self._omitted

    def add(self, path: str, line: int, message: str, hint: str = "") -> None:
        """Add a problem."""
        if self.full:
            self._omitted += 1
        else:
            self._found.append(Problem(path, line, message, hint))

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The warnings, in the order of the file."""
        return tuple(sorted(self._warnings, key=lambda problem: problem.line))

    @property
    def warnings_full(self) -> bool:
        """True if further warnings are dropped."""
        return len(self._warnings) >= MAX_PROBLEMS

    def warn(self, path: str, line: int, message: str, hint: str = "") -> None:
        """Add a warning."""
        if not self.warnings_full:
            self._warnings.append(Problem(path, line, message, hint))

    def raise_if_any(self, source: str) -> None:
        """Raise ConfigError with all problems, in the order of the file."""
        if self._found:
            raise ConfigError(source, sorted(self._found, key=lambda problem: problem.line), self._omitted)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known word, or lists the first few known words if none is close."""
    words = list(known)
    close = difflib.get_close_matches(word[:_MAX_WORD].lower(), _candidates(word, words), n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    listed = ", ".join(name[:_MAX_WORD] for name in words[:_MAX_CANDIDATES])
    return f"known: {listed}{', …' if len(words) > _MAX_CANDIDATES else ''}"


def _candidates(word: str, words: list[str]) -> list[str]:
    """Return a few words worth comparing: difflib takes quadratic time, and these words are a user's."""
    if len(words) <= _MAX_CANDIDATES:
        return words
    alike = [name for name in words if abs(len(name) - len(word)) <= 2 and name[:2] == word[:2]]
    nearly = (name for name in alike if name.startswith(word[:-2]))
    return [
        name for name in itertools.islice(itertools.chain(nearly, alike), _MAX_CANDIDATES) if len(name) <= _MAX_WORD
    ]


def quoted(text: str) -> str:
    """Quote a user's text for a message: in double quotes, cut to 80 characters, with control characters escaped."""
    cut = text if len(text) <= 80 else f"{text[:77]}..."
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut) + '"'
