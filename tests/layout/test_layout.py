"""What holds for the tree as a whole: one namespace over three roots, files a reader can take in."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = ("schema", "producers", "consumers")
SOURCES = sorted(path for root in SOURCE_ROOTS for path in (ROOT / root).rglob("*.py"))


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_the_package_is_a_namespace_over_its_roots(root: str) -> None:
    assert [path.name for path in (ROOT / root).iterdir() if path.name != "__pycache__"] == ["runstream"]
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


def test_no_source_file_is_over_400_lines() -> None:
    long = {str(path.relative_to(ROOT)): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in SOURCES if path.stat().st_size > 400 and not path.read_text().lstrip().startswith('"""')]
    assert not silent
