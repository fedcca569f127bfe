"""The code blocks in the documents, and what the tests do with each.

The first word behind the fence is the language, the second says what the block is:

    sh run              run, in order, in one shell for each document; `exit=N` when it is to end with N
    python run          run as a program of its own, at its place among the shell's commands
    LANGUAGE file=PATH  written to PATH, at its place among the commands; a run configuration in `yaml`, else in `yml`
    text output         what the block before it prints; `…` stands for lines that are left out
    LANGUAGE settings   a settings file, read by the real reader
    conf checked        a configuration of NATS, read by the real server
    yaml cluster        objects of Kubernetes, checked with the published schemas
    LANGUAGE untested   not run: its first line is a comment that says so and why
    text                a picture
    json                read by a parser
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRITTEN = ROOT / "docs" / "reference" / "run-config.md"
"""It has words of its own, and a test of its own: tests/runconfig/test_documents.py."""
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
UNTESTED = "# Not run by the tests of the documents: "
_FENCE = re.compile(r"^```(\S*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code."""

    document: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def what(self) -> str:
        """`run`, `output` …; `file` for one that is written."""
        return self.words[0].partition("=")[0] if self.words else ""

    def value(self, word: str) -> str:
        """The value of `word=value`; empty when it is not there."""
        return next((w.partition("=")[2] for w in self.words if w.startswith(f"{word}=")), "")

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks_of(document: Path) -> list[Block]:
    """All blocks of a document, in order."""
    text = document.read_text()
    return [
        Block(document, text.count("\n", 0, found.start()) + 1, found[1], tuple(found[2].split()), found[3])
        for found in _FENCE.finditer(text)
    ]


def all_blocks() -> list[Block]:
    """The blocks of all documents but the one that has a test of its own."""
    return [block for document in DOCUMENTS if document != WRITTEN for block in blocks_of(document)]
