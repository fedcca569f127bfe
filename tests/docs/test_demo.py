"""The commands that `make demo` suggests can be pasted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_commands_that_the_demo_prints_can_be_pasted() -> None:
    recipe = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (printed,) = re.findall(r"^printf '  %s\\n' (.*)", recipe.replace("\\\n", " "), re.MULTILINE)
    commands = re.findall(r"'([^']*)'", printed)
    assert len(commands) >= 4
    for command in commands:
        assert command.startswith(".venv/bin/runstream --data-dir .runstream-data "), command
        assert not re.search(r"\b[A-Z]{2,}\b", command), "a placeholder is no name"


def test_the_setup_says_that_it_takes_a_while_and_what_python_it_needs_before_it_installs() -> None:
    words = ["make", "--dry-run", "--always-make", "setup"]
    recipe = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    needs, says, installs = (recipe.index(text) for text in ("needs Python 3.11", "about a minute", "pip install"))
    assert needs < says < installs
