"""Whether a block prints what its document says, but for what differs each time: ids, times, durations, places."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.docs.blocks import Block
from tests.docs.session import Ran

LEFT_OUT = "…"
_DIFFERS = [
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"\d\d:\d\d:\d\d\.\d{3}", "TIME"),
    (r"\d+ (s|min|h|d) ago", "AGO"),
    (r"\d+ min \d\d s|\d+\.\d s|\d+ ms", "DURATION"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"\b\d+/\d+/\d+\b", "POSITION"),
    (r"\b[\d,]+ (commit|row)s?\b", r"N \1s"),
    (r" \(waiting for \d+ tasks?\)", ""),
    (r"(/[\w.-]+)+/first-pipeline", "FOLDER"),
    (r"amd64|arm64", "ARCH"),
    (r"\bat \d{4}\b", "at MIGRATION"),
    (r"\s+", " "),
]


def problems(blocks: Sequence[Block], ran: Sequence[Ran]) -> list[str]:
    """What did not go as the document says; each with its place."""
    found = [
        f"{one.block} ended with {one.exit_status}:\n{one.said}"
        for one in ran
        if one.exit_status != int(one.block.value("exit") or 0)
    ]
    said = {one.block: one.said for one in ran}
    last: Block | None = None
    for block in blocks:
        if block.what in ("run", "file"):
            last = block
            if block not in said:
                found.append(f"{block} was not come to")
        elif block.what == "output":
            assert last is not None, f"{block} follows nothing that is run"
            found += [f"{block}: {line}" for line in _missing(block.text, said.get(last, ""))]
    return found


def _missing(expected: str, said: str) -> list[str]:
    wanted = [line for line in _plain(expected) if line]
    actual = [line for line in _plain(said) if line]
    if LEFT_OUT not in wanted:
        return [] if wanted == actual else [f"it printed:\n{said}"]
    missing = [line for line in wanted if line not in (LEFT_OUT, *actual)]
    return [f"{line!r} is not in what it printed:\n{said}" for line in missing]


def _plain(text: str) -> list[str]:
    return [_undated(line).strip() for line in text.splitlines()]


def _undated(line: str) -> str:
    for pattern, stands_for in _DIFFERS:
        line = re.sub(pattern, stands_for, line)
    return line
