"""What a block prints is compared with its document: stdout where it is shown, stderr always."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block
from tests.docs.outputs import problems
from tests.docs.session import Ran, run_blocks


def shell(text: str, *words: str) -> Block:
    return Block(ROOT / "docs" / "x.md", 1, "sh", ("run", *words), text)


def output(text: str) -> Block:
    return Block(ROOT / "docs" / "x.md", 2, "text", ("output",), text)


@pytest.mark.parametrize(
    ("blocks", "wrong"),
    [
        ([shell("echo out\n"), output("out\n")], []),
        ([shell("echo out; echo bad >&2\n")], ["docs/x.md:1 wrote to stderr what its document does not show: bad"]),
        ([shell("echo out; echo bad >&2\n"), output("out\nbad\n")], []),
        ([shell("echo out; echo bad >&2\n"), output("bad\nout\n")], []),
        (
            [shell("echo out; echo bad >&2\n"), output("…\nout\n")],
            ["docs/x.md:1 wrote to stderr what its document does not show: bad"],
        ),
        ([shell("echo bad >&2; false\n", "exit=1")], []),
    ],
)
async def test_what_is_written_to_stderr_is_shown_in_the_document(
    tmp_path: Path, blocks: list[Block], wrong: list[str]
) -> None:
    assert problems(blocks, await run_blocks(blocks, tmp_path, {}, seconds=30)) == wrong


def test_differences_of_a_block_are_reported() -> None:
    block = shell("")
    assert problems([block, output("a\n")], [Ran(block, 0, "b\n", "")]) == ["docs/x.md:2: it printed:\nb\n"]
    assert problems([block], []) == ["docs/x.md:1 was not come to"]
