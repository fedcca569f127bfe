"""Every stop of the code tour is there: the file, and what is to be read in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs/explanation/code-tour.md").read_text()
MOST = {"One run": 15, "One export": 6, "One shell step": 10}
"""Files that each walk may need."""
_CODE = re.compile(r"`([^`]+)`")


def walks() -> dict[str, str]:
    parts = re.split(r"^## (.*)$", TOUR, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def defined(file: Path) -> set[str]:
    """Return the names of a module's functions and classes, methods with their class."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            names |= {f"{node.name}.{each.name}" for each in methods}
    return names


def stops(walk: str) -> list[tuple[str, str]]:
    """Return the files of a walk, each with the names that are said to be in it."""
    found: list[tuple[str, str]] = []
    file = ""
    for item in re.split(r"^\d+\. |\n\n", walk, flags=re.MULTILINE):
        for code in _CODE.findall(item):
            if code.endswith(".py"):
                file = code
                found.append((file, ""))
            elif file and re.fullmatch(r"[A-Za-z_]+(\.[a-z_]+)?", code) and code in _names(item, file):
                found.append((file, code))
    return found


def _names(item: str, file: str) -> set[str]:
    """Return the names that directly follow a file: behind its colon, or in parentheses."""
    behind = item.partition(f"`{file}`")[2]
    listed = re.match(r"(?:: | \()((?:`[^`]+`(?: and | makes [^`]*?, )?)+)", behind)
    return set(_CODE.findall(listed[1])) if listed else set()


@pytest.mark.parametrize("title", walks())
def test_a_walk_names_what_is_there(title: str) -> None:
    found = stops(walks()[title])
    for file, name in found:
        assert (ROOT / file).is_file(), file
        assert not name or name in defined(ROOT / file), (file, name)
    files = {file for file, _ in found}
    most = next(most for begins, most in MOST.items() if title.startswith(begins))
    assert len(files) <= most
    assert sum(bool(name) for _, name in found) >= len(files) - 1
