"""The committed page is that of its sources, as far as one can tell without Node; `make web-check` compares bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from tests.page.api_types import TYPES, WEB, types
from tests.page.histories import HISTORIES, histories

PAGE = WEB.parent / "runstream" / "gateway" / "page"
_SOURCES = ("build.mjs", "package.json", "package-lock.json", "tsconfig.json", "src")


def sources() -> Iterator[Path]:
    for name in _SOURCES:
        path = WEB / name
        found = [path] if path.is_file() else path.rglob("*")
        # Types leave nothing in the scripts.
        yield from (path for path in found if path.is_file() and path != TYPES)


def test_the_page_was_built_from_the_sources_that_are_here() -> None:
    digests = {path.relative_to(WEB).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sources()}
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    built_from = (PAGE / "sources.sha256").read_text().strip()
    assert built_from == hashlib.sha256(lines.encode()).hexdigest(), "run `make web`"


def test_the_types_of_the_page_are_those_of_the_api() -> None:
    assert TYPES.read_text() == types(), "run `make web`"


async def test_the_replay_of_the_page_is_tested_with_histories_of_the_service() -> None:
    """`make web-check` replays them; every kind of change is among them."""
    text = await histories()
    assert HISTORIES.read_text() == text, "run `make web`"
    cases = json.loads(text)
    assert sum(len(history["commits"]) for history in cases["histories"]) > 50
    assert sum(len(one["removals"]) for one in cases["documents"]) > 20


def test_the_document_names_files_that_are_there() -> None:
    document = (PAGE / "index.html").read_text()
    there = {path.name for path in (PAGE / "assets").iterdir()}
    named = {part.split('"')[0] for part in document.split("/ui/assets/")[1:]}
    assert len(named) == 3
    assert named <= there


def test_the_lock_file_names_hashes_and_no_registry() -> None:
    lock = json.loads((WEB / "package-lock.json").read_text())
    manifest = json.loads((WEB / "package.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not any("resolved" in package for package in packages.values())
    wanted = {**manifest["dependencies"], **manifest["devDependencies"]}
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
