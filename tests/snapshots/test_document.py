"""docs/formats/snapshot.md, and the README in each snapshot, tell commands that work with nothing of ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from runstream.snapshots.manifest import Manifest
from runstream.snapshots.segments import SegmentDescription
from tests.docs.blocks import ROOT, blocks_of
from tests.snapshots.make_golden import GOLDEN

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
    text = DOCUMENT.read_text()
    for kind in (Manifest, SegmentDescription):
        assert all(f"`{name}`" in text for name in kind.__slots__)
