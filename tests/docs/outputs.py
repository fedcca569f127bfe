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
    (r"\b[\d,]+ (commit|row|event|object|byte)s?\b", r"N \1s"),
    (r" \(waiting for \d+ tasks?\)", ""),
    (r"(/[\w.-]+)+/first-pipeline", "FOLDER"),
    (r"amd64|arm64", "ARCH"),
    (r"\bat \d{4}\b", "at MIGRATION"),
    (r"\s+", " "),
]


def problems(blocks: Sequence[Block], ran: Sequence[Ran]) -> list[str]:
    """What did not go as the document says; each with its place."""
    found = [
        f"{one.block} ended with {one.exit_status}:\n{one.said}{one.complained}"
        for one in ran
        if one.exit_status != int(one.block.value("exit") or 0)
    ]
    done = {one.block: one for one in ran}
    shown: dict[Block, str] = {}
    last: Block | None = None
    for block in blocks:
        if block.what in ("run", "file"):
            last = block
            if block not in done:
                found.append(f"{block} was not come to")
        elif block.what == "output":
            assert last is not None, f"{block} follows nothing that is run"
            shown[last] = block.text
            found += [f"{block}: {line}" for line in _missing(block.text, done.get(last))]
    return found + [
        f"{one.block} wrote to stderr what its document does not show: {line}"
        for one in ran
        if not one.block.value("exit")
        for line in _unlike(one.complained, shown.get(one.block, ""))
    ]


def _unlike(complained: str, shown: str) -> list[str]:
    known = _plain(shown)
    return [line for line in _plain(complained) if line and line not in known]


def _missing(expected: str, ran: Ran | None) -> list[str]:
    wanted = [line for line in _plain(expected) if line]
    out, err = (ran.said, ran.complained) if ran is not None else ("", "")
    if LEFT_OUT not in wanted:
        orders = ([line for line in _plain(text) if line] for text in (out, out + err, err + out))
        return [] if wanted in orders else [f"it printed:\n{out}{err}"]
    actual = _plain(out + err)
    missing = [line for line in wanted if line not in (LEFT_OUT, *actual)]
    return [f"{line!r} is not in what it printed:\n{out}{err}" for line in missing]


def _plain(text: str) -> list[str]:
    return [_undated(line).strip() for line in text.splitlines()]


def _undated(line: str) -> str:
    for pattern, stands_for in _DIFFERS:
        line = re.sub(pattern, stands_for, line)
    return line
