"""The commands in the documents work, in the order in which they appear."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from tests.docs.blocks import ROOT, Block, all_blocks, blocks_of
from tests.docs.outputs import problems
from tests.docs.session import run_blocks
from tests.docs.tables import code, rows
from tests.service.running import a_run, runstream, serving

TUTORIALS = {
    ROOT / "docs" / "tutorial.md": "first-pipeline",
    ROOT / "docs" / "tutorial-projects.md": "projects",
}
"""The tutorials, each with its folder; they start and stop a service of their own."""
IN_ORDER = (
    *("README.md", "docs/how-to/publish-from-python.md", "docs/reference/api.md", "docs/how-to/watch-events.md"),
    "docs/how-to/run-it-again.md",
    *("docs/how-to/check-the-projection.md", "docs/how-to/observe.md", "docs/how-to/maintenance.md"),
    "docs/how-to/secrets.md",
    *("docs/how-to/retries-and-time-outs.md", "docs/how-to/groups-and-priorities.md", "docs/how-to/matrix.md"),
    "docs/how-to/caches.md",
    "docs/how-to/from-github-actions.md",
    *("docs/how-to/deploy-with-approval.md", "docs/how-to/back-up-and-restore.md"),
    "docs/how-to/add-an-executor.md",
)
"""Those that are run against one service. The last one deletes its executor, which then registers again."""
INSTALL = """
runs:
  - name: pipeline
    tasks:
      - {name: install, runtime: {type: host}, steps: [{run: echo installed}]}
"""


@pytest.mark.seconds(240)
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
async def test_the_tutorials(open_path: Path, tutorial: Path) -> None:
    blocks = blocks_of(tutorial)
    data_dir = str(open_path / TUTORIALS[tutorial] / "data")
    try:
        ran = await run_blocks(blocks, open_path, {}, seconds=220)
        assert problems(blocks, ran) == []
    finally:
        for folder in (data_dir, str(open_path / TUTORIALS[tutorial] / "elsewhere")):
            await runstream("--data-dir", folder, "stop")


@pytest.mark.seconds(240)
async def test_the_other_documents(open_path: Path) -> None:
    data_dir = open_path / "data"
    (open_path / ".venv").symlink_to(sys.prefix)
    (open_path / ".runstream-data").symlink_to(data_dir)
    found: list[str] = []
    async with serving(data_dir) as service, asyncio.timeout(220):
        run = await a_run(data_dir, INSTALL)
        token = json.loads((data_dir / "service.json").read_text())["token"]
        environment = {"RUNSTREAM_DATA_DIR": str(data_dir), "RUNSTREAM_URL": service.url, "RUNSTREAM_TOKEN": token}
        for name in IN_ORDER:
            blocks = [_with_run(block, run) for block in blocks_of(ROOT / name)]
            found += problems(blocks, await run_blocks(blocks, open_path, environment, seconds=120))
        assert await _exported(service.url) <= {name for row in rows("metrics.md", "Metrics") for name in code(row[0])}
    assert found == []


async def _exported(url: str) -> set[str]:
    """The names of all metrics that the service has by now."""
    async with httpx2.AsyncClient() as http:
        text = (await http.get(f"{url}/metrics")).text
    return set(re.findall(r"^# TYPE (runstream_\w+)", text, re.MULTILINE))


def _with_run(block: Block, run: str) -> Block:
    """`RUN` stands for the id of a run."""
    return replace(block, text=re.sub(r"\bRUN\b", run, block.text)) if block.what == "run" else block


def test_every_document_that_has_something_to_run_is_run() -> None:
    run = {str(block.document.relative_to(ROOT)) for block in all_blocks() if block.what == "run"}
    assert run == {*IN_ORDER, *(str(tutorial.relative_to(ROOT)) for tutorial in TUTORIALS)}
