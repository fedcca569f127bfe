"""Counts in sentences have the noun in its number."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from runstream.counting import counted

ROOT = Path(__file__).parents[2]
NOUNS = (
    *("attempts", "commits", "connections", "entries", "executors", "files", "lines", "logs", "objects", "problems"),
    *("processes", "requests", "rows", "runs", "segments", "steps", "tasks", "tokens", "users"),
)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks"), (12_000, "12,000 tasks"), (1000, "1,000 tasks")]
)
def test_a_count_has_its_noun_in_its_number(count: int, text: str) -> None:
    assert counted(count, "task") == text
    assert counted(count, "entry", "entries") == text.replace("task", "entry" if count == 1 else "entrie")


def test_no_sentence_puts_a_plural_after_a_number_that_may_be_one() -> None:
    found = [place for root in ("schema", "producers", "consumers") for place in _plurals(ROOT / root)]
    assert found == []


def _plurals(root: Path) -> Iterator[str]:
    """Yield the places of f-strings with a plural directly after a value that may be 1."""
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                for before, value, text in zip([None, *node.values], node.values, node.values[1:], strict=False):
                    word = _first_word(text)
                    if isinstance(value, ast.FormattedValue) and word in NOUNS and not _is_more_than_one(before, value):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}: {{{ast.unparse(value.value)}}} {word}"


def _first_word(text: ast.expr) -> str:
    content = str(text.value) if isinstance(text, ast.Constant) else ""
    return content.split(" ")[1].rstrip(".,:;") if content.startswith(" ") else ""


def _is_more_than_one(before: ast.expr | None, value: ast.FormattedValue) -> bool:
    """Return whether the value is a limit or a constant, the whole in "1 of 1 tasks", or a name."""
    name = ast.unparse(value.value)
    whole = isinstance(before, ast.Constant) and str(before.value).endswith(" of ")
    return whole or name.isupper() or name.endswith((".name", "most", "_lines"))
