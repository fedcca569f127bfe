"""The commands in docs/formats/snapshot.md and in each snapshot's README work without Runstream."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runstream.snapshots.manifest import FirstParked, Manifest, ObjectList, SnapshotHeader
from runstream.snapshots.segments import SegmentDescription
from tests.docs.blocks import ROOT, blocks_of
from tests.snapshots.files import parts
from tests.snapshots.make_golden import GOLDEN

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DOCUMENT = ROOT / "docs" / "formats" / "snapshot.md"
NEWEST = max(GOLDEN.glob("*.tar"))
missing = [tool for tool in ("bash", "tar", "zstd", "jq", "openssl", "sha256sum") if shutil.which(tool) is None]
with_tools = pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not there")


def told(folder: Path, script: str) -> str:
    """What a script prints; it has to end well."""
    command = ["bash", "-euc", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@with_tools
def test_the_commands_of_the_document(tmp_path: Path) -> None:
    shutil.copy(NEWEST, tmp_path / "snapshot.tar")
    out = told(tmp_path, "".join(block.text for block in blocks_of(DOCUMENT) if block.language == "sh"))
    assert "manifest.json: OK" in out
    assert '"subject":"runconfig.' in out
    assert "10 RunCreated" in out
    assert "Signature Verified Successfully" in out


@with_tools
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.tar")), ids=lambda path: path.stem)
def test_the_commands_in_every_snapshot(path: Path, tmp_path: Path) -> None:
    told(tmp_path, f"tar -xf '{path}' README.md")
    text = (tmp_path / "README.md").read_text()
    script = "\n".join(line.strip() for line in text.splitlines() if line.startswith("    "))
    out = told(tmp_path, script.replace("SNAPSHOT", f"'{path}'"))
    assert "manifest.json: OK" in out
    assert "all as exported" in out


def test_every_field_is_told() -> None:
    text, log = DOCUMENT.read_text(), (DOCUMENT.parent / "log.md").read_text()
    for kind in (SnapshotHeader, Manifest, SegmentDescription, ObjectList, FirstParked):
        assert all(f"`{name}`" in text for name in kind.__slots__), kind
    files = parts(NEWEST)
    lines = [line for name in files if name.startswith("segments/") for line in lines_of(files[name])]
    assert all(f"`{key}`" in text for line in lines for key in line)
    commits = [line["commit"] for line in lines if "events" in line.get("commit", ())]
    assert all(f"`{key}`" in log for commit in commits for key in commit)
    listed = [line for name in files if name.startswith("object-lists/") for line in lines_of(files[name])]
    assert listed
    assert all(f'"{key}":' in text for line in listed for key in line)


def lines_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in zstd.decompress(data).splitlines()]
