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


def imported(file: Path) -> set[str]:
    """Return the names that a module imports from others."""
    imports = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom))
    return {alias.name for node in imports for alias in node.names}


ON_THE_PAGE = {ROOT / code for code in _CODE.findall(TOUR) if code.endswith(".py")}
EVENTS = {name for file in (ROOT / "schema/runstream/events").glob("*.py") for name in defined(file)}
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


def stops(walk: str) -> list[str]:
    """Return the stops of a walk, and the paragraphs behind them."""
    return [stop for stop in re.split(r"^\d+\. |\n\n", walk, flags=re.MULTILINE) if _files(stop)]


def _files(stop: str) -> list[str]:
    return [code for code in _CODE.findall(stop) if code.endswith(".py")]


def _names_behind(stop: str, file: str) -> list[str]:
    """Return the names that directly follow a file: behind its colon, or in parentheses."""
    behind = stop.partition(f"`{file}`")[2]
    listed = re.match(r"(?:: | \()((?:`[^`]+`(?: and | makes [^`]*?, )?)+)", behind)
    return _CODE.findall(listed[1]) if listed else []


@pytest.mark.parametrize("title", walks())
def test_a_walk_names_what_is_there(title: str) -> None:
    for stop in stops(walks()[title]):
        for file in _files(stop):
            assert (ROOT / file).is_file(), file
            behind = _names_behind(stop, file)
            assert behind, f"no name to read in {file}"
            assert set(behind) <= defined(ROOT / file), file
    most = next(most for begins, most in MOST.items() if title.startswith(begins))
    assert len({file for stop in stops(walks()[title]) for file in _files(stop)}) <= most


@pytest.mark.parametrize("title", walks())
def test_every_name_of_a_walk_exists(title: str) -> None:
    """A name of the text is defined on the page's files, is an event, or is used by the stop's own files."""
    on_the_page = {name for file in ON_THE_PAGE for name in defined(file)}
    for stop in stops(walks()[title]):
        used = {name for file in _files(stop) for name in imported(ROOT / file)}
        codes = [code for code in _CODE.findall(stop) if not code.endswith(".py")]
        unknown = [code for code in codes if _NAME.fullmatch(code) and code not in on_the_page | EVENTS | used]
        assert unknown == [], stop
