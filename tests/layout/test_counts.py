"""Counts that people read have their noun in the right number: texts say `counted(n, "task")`, not `f"{n} tasks"`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_THINGS = (
    *("aggregate", "archive", "attempt", "backup", "branch", "byte", "column", "commit"),
    *("component", "connection", "consumer", "difference", "entry", "epoch", "error", "event", "executor", "file"),
    *("finding", "folder", "instance", "key", "level", "line", "link", "log", "message", "object", "partition"),
    *("place", "problem", "process", "reason", "replica", "request", "restart", "row", "run", "secret"),
    *("segment", "server", "setting", "snapshot", "step", "stream", "task", "thread", "value", "warning"),
)
_PLURALS = {thing.removesuffix("y") + "ies" if thing.endswith("ry") else thing + "s" for thing in _THINGS}
_PLURALS |= {"branches", "processes"}
_NEVER_ONE = re.compile(
    r"(?:^|\.)(?:[A-Z_]+(?: \* [A-Z_]+)?|name|\w*limits?\w*|memory|most|head_\w+|\w+_bytes|bytes)(?:$|\.)"
)
"""Limits, which have a sane least value, and what is no count."""
_COUNTED = re.compile(r"^ (?:(?:more|further|other) )?([a-z]+)\b")


def _counts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Find plurals directly behind a value that is computed."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, text in zip(node.values, node.values[1:], strict=False):
            if not (isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant)):
                continue
            found = _COUNTED.match(str(text.value))
            source = ast.unparse(value.value)
            if found and found[1] in _PLURALS and not _NEVER_ONE.search(source):
                yield node.lineno, f"{{{source}}}{found[0]}"


def test_a_count_of_one_has_a_noun_in_the_singular() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for folder in ("schema", "producers", "consumers")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in _counts(ast.parse(path.read_text()))
    ]
    assert wrong == []


def test_the_search_finds_what_it_is_for() -> None:
    found = [
        text for _, text in _counts(ast.parse('f"{n} commits, {len(a)} more rows, {n} commit, {MAX} files, {n}s"'))
    ]
    assert found == ["{n} commits", "{len(a)} more rows"]
