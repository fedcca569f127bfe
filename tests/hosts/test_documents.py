"""The codes of the package stand in its document."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_code_is_documented() -> None:
    sources = (ROOT / "producers/runstream/hosts").glob("*.py")
    used = {code for path in sources for code in re.findall(r'code="(\w+)"', path.read_text())}
    _, _, errors = (ROOT / "docs/reference/git-hosts.md").read_text().partition("## Errors")
    told = set(re.findall(r"^\| `(\w+)` \|", errors, re.MULTILINE))
    assert used == told
