"""Files of variables that are given for a run: a map of names to texts, in YAML or JSON."""

from __future__ import annotations

from runstream.runconfig.cursor import Cursor
from runstream.runconfig.problems import Problems
from runstream.runconfig.reading import read_nodes


def parse_variables(text: bytes | str, source: str) -> dict[str, str]:
    """The variables that a file gives. Raises ConfigError with everything that is wrong with it."""
    node = read_nodes(text, source)
    if node is None:
        return {}
    problems = Problems()
    variables = {name: place.text() for name, place in Cursor(node, "", problems, 1).entries()}
    problems.raise_if_any(source)
    return variables
