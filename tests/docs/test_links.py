"""Links between documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import DOCUMENTS, ROOT

_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`|^    .*$", re.DOTALL | re.MULTILINE)


def prose(document: Path) -> str:
    """The text without code."""
    return _CODE.sub("", document.read_text())


def anchors(document: Path) -> set[str]:
    """What a link into a document may name: its headings, as they are rendered."""
    headings = re.findall(r"^#+ +(.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    wrong = []
    for link in _LINK.findall(prose(document)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_the_index_names_every_document_of_its_kinds() -> None:
    index = ROOT / "docs" / "index.md"
    kinds = {index.parent / kind for kind in ("how-to", "explanation", "reference", "formats")}
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(index))}
    missing = [document for document in DOCUMENTS if document.parent in kinds and document not in linked]
    assert missing == []


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs/adr").glob("[0-9]*.md")]
    assert sorted(numbers) == sorted(set(numbers))


def test_a_decision_begins_with_its_number() -> None:
    for path in (ROOT / "docs/adr").glob("[0-9]*.md"):
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), path.name
