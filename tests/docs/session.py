"""A document as a shell reads it: its blocks in order, in one bash, each between two marks.

A block that is to end well stops the session when one of its commands fails.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.docs.blocks import Block
from tests.forkserver import commands

_MARK = "\x1e"
_HERE = "END-OF-THE-BLOCK"


@dataclass(frozen=True)
class Ran:
    """What became of a block."""

    block: Block
    exit_status: int | None
    """None when the session ended in it."""
    said: str
    """What it wrote to stdout."""
    complained: str
    """What it wrote to stderr."""


async def run_blocks(
    blocks: Sequence[Block], folder: Path, environment: Mapping[str, str], *, seconds: float
) -> list[Ran]:
    """Run the runnable blocks in this folder, all of them within these seconds."""
    todo = [block for block in blocks if block.what in ("run", "file")]
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        "\n".join(_piece(number, block) for number, block in enumerate(todo)),
        cwd=folder,
        env=_environment(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _told(todo, out.decode(), err.decode())


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTREAM_")}
    path = os.pathsep.join([str(commands()), str(Path(sys.executable).parent), ours["PATH"]])
    return {**ours, "PATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **given}


def _piece(number: int, block: Block) -> str:
    expected = int(block.value("exit") or 0)
    mark = f"printf '{_MARK}begin {number}{_MARK}'"
    begin = f"{mark}; {mark} >&2"
    mark = f"printf '{_MARK}end {number} %s{_MARK}' $ended"
    end = f"ended=$?; {mark}; {mark} >&2"
    careful = "set -e" if not expected else "set +e"
    return f"{begin}\n{careful}\n{_script(block)}\n{end}\nset +e"


def _script(block: Block) -> str:
    if block.what == "file":
        path = block.value("file")
        return f"mkdir -p \"$(dirname '{path}')\"\ncat > '{path}' <<'{_HERE}'\n{block.text}{_HERE}"
    if block.language == "python":
        return f"python - <<'{_HERE}'\n{block.text}{_HERE}"
    return block.text


def _told(todo: Sequence[Block], out: str, err: str) -> list[Ran]:
    ran = []
    for number, block in enumerate(todo):
        if (said := _of_block(number, out)) is None:
            break
        complained = _of_block(number, err)
        ran.append(Ran(block, said[1], said[0], complained[0] if complained else ""))
    return ran


def _of_block(number: int, text: str) -> tuple[str, int | None] | None:
    """Return what was written between a block's marks, and its exit status; None for a block that did not begin."""
    _, begun, rest = text.partition(f"{_MARK}begin {number}{_MARK}")
    if not begun:
        return None
    end = re.search(f"{_MARK}end {number} (\\d+){_MARK}", rest)
    return (rest[: end.start()], int(end[1])) if end else (rest, None)
