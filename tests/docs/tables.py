"""Tables of the reference, as rows of cells."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT

DOCS = ROOT / "docs" / "reference"


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without the table's own heading."""
    section = re.split(r"^#+ ", (DOCS / document).read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"{heading}\n")]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)
