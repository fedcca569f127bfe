"""Docstrings and documents cite rules that docs/reference/rules.md has, and the tests that it links exist."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.docs.blocks import DOCUMENTS, ROOT

RULES = ROOT / "docs" / "reference" / "rules.md"
SOURCES = [
    path
    for root in ("schema", "producers", "consumers", "tests", "benchmarks")
    for path in sorted((ROOT / root).rglob("*.py"))
]
_RULE = re.compile(r"^- \*\*([a-z]+-[0-9]+)\*\* ", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`\]\(\.\./\.\./(\S+)\)")
_ID = re.compile(r"[a-z]+-[0-9]+")
_CITATION = re.compile(r"\b[Rr]ules? ([a-z]+-[0-9]+(?:(?:,| and| to)\s+[a-z]+-[0-9]+)*)")
_OF_ANOTHER_DOCUMENT = re.compile(r"\bdomain [a-l]\.[0-9]|\([a-l]\.[0-9]{1,2}[),:]")


def test_each_rule_has_an_id_of_its_own() -> None:
    ids = Counter(_RULE.findall(_text(RULES)))
    assert len(ids) >= 80
    assert [rule for rule, count in ids.items() if count > 1] == []


def test_each_rule_that_is_cited_exists() -> None:
    rules = set(_RULE.findall(_text(RULES)))
    cited = list(_citations())
    assert len(cited) >= 80
    assert [f"{place}: {rule}" for place, rule in cited if rule not in rules] == []


def test_no_docstring_cites_a_rule_of_a_document_that_is_not_here() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in (*SOURCES, *DOCUMENTS)
        if (match := _OF_ANOTHER_DOCUMENT.search(_text(path)))
    ]
    assert found == []


def test_each_test_that_a_rule_links_exists() -> None:
    links = _TEST.findall(_text(RULES))
    assert len(links) == _text(RULES).count("::")
    missing = [f"{path}::{name}" for path, name, link in links if path != link or name not in _names(ROOT / path)]
    assert missing == []


def _citations() -> Iterator[tuple[Path, str]]:
    for path in (*SOURCES, *DOCUMENTS):
        for cited in _CITATION.findall(_text(path)):
            for rule in _ID.findall(cited):
                yield path.relative_to(ROOT), rule


@cache
def _text(path: Path) -> str:
    return path.read_text()


@cache
def _names(path: Path) -> frozenset[str]:
    """The functions, classes and constants of a module; none for a module that is not there."""
    found: set[str] = set()
    for node in ast.parse(_text(path)).body if path.is_file() else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return frozenset(found)
