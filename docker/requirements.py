"""Print the part of requirements.txt that Runstream needs when it runs, with the hashes: its images are made of it."""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needs(name: str, extras: frozenset[str], found: set[tuple[str, frozenset[str]]]) -> None:
    """Add what a distribution of this environment needs with these extras, and what that needs."""
    for text in requires(name) or ():
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            each = (canonicalize_name(needed.name), frozenset(needed.extras))
            if each not in found:
                found.add(each)
                needs(*each, found)


found: set[tuple[str, frozenset[str]]] = set()
needs("runstream", frozenset(), found)
names = {name for name, _ in found}
for entry in re.split(r"\n(?=[a-z0-9])", Path("requirements.txt").read_text()):
    if canonicalize_name(re.split(r"[=\[ ]", entry)[0]) in names:
        sys.stdout.write(entry + "\n")
