"""Print the part of requirements.txt that Runstream needs when it runs, with the hashes: its images are made of it."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def add(requirements: Iterable[str], extras: frozenset[str], found: set[tuple[str, frozenset[str]]]) -> None:
    """Add these requirements of a distribution with these extras, and their own, as this environment has them."""
    for text in requirements:
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            each = (canonicalize_name(needed.name), frozenset(needed.extras))
            if each not in found:
                found.add(each)
                add(requires(each[0]) or (), each[1], found)


found: set[tuple[str, frozenset[str]]] = set()
# Not those of the installed Runstream, which may be an older one.
add(tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"], frozenset(), found)
names = {name for name, _ in found}
for entry in re.split(r"\n(?=[a-z0-9])", Path("requirements.txt").read_text()):
    if canonicalize_name(re.split(r"[=\[ ]", entry)[0]) in names:
        sys.stdout.write(entry + "\n")
