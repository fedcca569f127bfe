"""What holds for the tree as a whole: one namespace over three roots, files a reader can take in."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = ("schema", "producers", "consumers")
SOURCES = sorted(path for root in SOURCE_ROOTS for path in (ROOT / root).rglob("*.py"))


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_the_package_is_a_namespace_over_its_roots(root: str) -> None:
    beside = {"__pycache__", "web"}  # the sources of the page are no Python
    assert [path.name for path in (ROOT / root).iterdir() if path.name not in beside] == ["runstream"]
    assert not (ROOT / root / "__init__.py").exists()
    assert not (ROOT / root / "runstream" / "__init__.py").exists()


def test_no_module_stands_in_two_roots() -> None:
    names = [path.name for root in SOURCE_ROOTS for path in (ROOT / root / "runstream").iterdir()]
    names = [name for name in names if name != "__pycache__"]
    assert len(names) == len(set(names))


def test_types_are_checked_over_all_roots() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert set(SOURCE_ROOTS) <= set(settings["files"])
    assert settings["strict"]
    assert settings["explicit_package_bases"]
    assert "packages" not in settings


def test_the_contract_about_the_http_api_lists_all_consumers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (listed,) = [one["source_modules"] for one in contracts if one.get("forbidden_modules") == ["runstream.gateway"]]
    top = ROOT / "consumers/runstream"
    # A folder that another version has left behind has no module.
    here = {path.relative_to(top).parts[0].removesuffix(".py") for path in top.rglob("*.py")}
    assert sorted(listed) == sorted(f"runstream.{name}" for name in here if not name.startswith("__"))


def test_an_error_that_is_passed_over_says_why() -> None:
    silent = [where for path in SOURCES for where in _passed_over(path)]
    assert not silent


def _passed_over(path: Path) -> Iterator[str]:
    """Find handlers that neither raise nor report an error, without a comment or a docstring that says why."""
    text = path.read_text()
    lines, tree = text.splitlines(), ast.parse(text)
    explained = [
        range(node.lineno, (node.end_lineno or 0) + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler | ast.With) and _passes_over(node):
            near = lines[node.lineno - 2 : node.body[-1].end_lineno]
            if not any("#" in line for line in near) and not any(node.lineno in function for function in explained):
                yield f"{path.relative_to(ROOT)}:{node.lineno}"


def _passes_over(node: ast.ExceptHandler | ast.With) -> bool:
    if isinstance(node, ast.With):
        return any("suppress(" in ast.unparse(item) for item in node.items)
    passing = ast.Pass | ast.Continue | ast.Break
    return all(isinstance(one, passing) or (isinstance(one, ast.Return) and not one.value) for one in node.body)


def test_no_test_sleeps() -> None:
    """Tests wait for conditions. `sleep(0)` is no sleep: it lets ready tasks run once.

    A line may say why it has to: `# sleeps: …`, where a fault has to last, or nothing tells of a change.
    """
    sleeping = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text()
        lines = text.splitlines()
        sleeping += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("asyncio.sleep", "time.sleep")
            if not (isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
            if "# sleeps: " not in lines[node.lineno - 1]
        ]
    assert not sleeping


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in SOURCES if path.stat().st_size > 400 and not path.read_text().lstrip().startswith('"""')]
    assert not silent


RELEASED_TWICE = {
    "Depend": "of the API (OpenAPI, `runstream.client`), and of an event (its JSON Schema)",
    "Step": "of the API (OpenAPI, `runstream.client`), and of an event (its JSON Schema)",
}
"""Names that two classes share because released formats show both."""


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in shared.items() if name not in RELEASED_TWICE} == {}
    assert shared.keys() == RELEASED_TWICE.keys()


def test_tests_import_public_names() -> None:
    private = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name.name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for name in node.names
        if name.name.startswith("_")
    ]
    assert private == []
