"""Whatever bytes come: a report or a refusal, never a crash. `make fuzz` goes on for RUNSTREAM_FUZZ_SECONDS."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runstream.errors import BadRequestError
from runstream.snapshots import manifest as m
from runstream.snapshots.partial_file import resume
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.signing import SigningKey, make_keys
from runstream.snapshots.verify import verify
from tests.snapshots.files import described_anew, generated, pack, parts, write

SECONDS = float(os.environ.get("RUNSTREAM_FUZZ_SECONDS", "8"))
"""For all tests of this file together."""
fuzzed = settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[*HealthCheck],
    phases=[Phase.generate, Phase.shrink],
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["", "0" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["write", "insert", "delete", "double", "cut"]),
        st.integers(0, 1 << 20),
        st.binary(min_size=1, max_size=40),
    ),
    min_size=1,
    max_size=4,
)


@cache
def folder() -> Path:
    """Where a small signed snapshot is, `good`, and where others are tried, `fuzzed`."""
    made = Path(tempfile.mkdtemp(prefix="runstream-fuzz-"))
    atexit.register(shutil.rmtree, made)
    make_keys(made / "key.pem")
    write(made / "good", generated(6, 2), key=SigningKey.read(made / "key.pem"))
    return made


@cache
def good() -> bytes:
    return (folder() / "good").read_bytes()


@cache
def good_parts() -> dict[str, bytes]:
    return parts(folder() / "good")


def edited(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for what, number, data in changes:
        at = number % (len(content) + 1)
        before, after = content[:at], content[at:]
        match what:
            case "write":
                content = before + data + after[len(data) :]
            case "insert":
                content = before + data + after
            case "delete":
                content = before + after[len(data) * 13 :]
            case "double":
                content = before + after[: len(data) * 13] + after
            case "cut":
                content = before
    return content


def looked_at(path: Path) -> bool:
    """Read it in every way; only Runstream's own errors may occur. Return True if it is valid."""
    report = verify(path)
    assert report.good == (not report.problems)
    assert all(problem.part and problem.what for problem in report.problems)
    try:
        with open_snapshot(path) as snapshot:
            for partition in range(snapshot.header.partitions):
                assert all(stored.commit.version > 0 for stored in snapshot.commits(partition))
    except BadRequestError:
        assert not report.good
    with path.open("r+b") as file:
        try:
            resume(file)
        except BadRequestError:
            return report.good
    return report.good


@given(edits)
@fuzzed
def any_bytes(changes: list[tuple[str, int, bytes]]) -> None:
    content = edited(good(), changes)
    path = folder() / "fuzzed"
    path.write_bytes(content)
    assert looked_at(path) == (content == good())


@given(st.sampled_from([m.SNAPSHOT, m.MANIFEST]), st.integers(0, 1000), json_values, edits | st.none())
@fuzzed
def any_text(name: str, place: int, value: Any, changes: list[tuple[str, int, bytes]] | None) -> None:
    files = dict(good_parts())
    text = json.loads(files[name])
    spots = [*_spots(text)]
    holder, key = spots[place % len(spots)]
    holder[key] = value
    files[name] = json.dumps(text).encode()
    if changes is not None:
        files[name] = edited(files[name], changes)
    if name == m.SNAPSHOT:
        files = described_anew(files)
    files[m.END] = m.end_of(files[m.MANIFEST])
    looked_at(pack(folder() / "fuzzed", files))


@given(st.integers(0, 1000), st.integers(0, 1000), json_values, edits | st.none())
@fuzzed
def any_line(line: int, place: int, value: Any, changes: list[tuple[str, int, bytes]] | None) -> None:
    files = dict(good_parts())
    name = next(name for name in files if name.startswith("segments/"))
    lines = zstd.decompress(files[name]).splitlines()
    parsed = json.loads(lines[line % len(lines)])
    spots = [*_spots(parsed)]
    holder, key = spots[place % len(spots)]
    holder[key] = value
    lines[line % len(lines)] = json.dumps(parsed).encode()
    content = b"\n".join(lines) + b"\n"
    looked_at(_with_segment(files, name, edited(content, changes) if changes is not None else content))


@given(edits)
@fuzzed
def any_frame(changes: list[tuple[str, int, bytes]]) -> None:
    files = dict(good_parts())
    name = next(name for name in files if name.startswith("segments/"))
    content = zstd.decompress(files[name])
    looked_at(_with_segment(files, name, content, edited(files[name], changes)))


def _with_segment(files: dict[str, bytes], name: str, content: bytes, data: bytes | None = None) -> Path:
    """A snapshot with this segment instead, and everything else made to fit."""
    data = zstd.compress(content) if data is None else data
    segments = m.read_manifest(files[m.MANIFEST]).segments
    described = [
        replace(
            found,
            bytes=len(content) or 1,
            sha256=hashlib.sha256(content).hexdigest(),
            file_bytes=len(data) or 1,
            file_sha256=hashlib.sha256(data).hexdigest(),
        )
        if found.name == name
        else found
        for found in segments
    ]
    as_json = [{key: getattr(found, key) for key in found.__slots__} for found in described]
    return pack(folder() / "fuzzed", described_anew({**files, name: data}, segments=as_json))


def _spots(value: Any) -> Any:
    """Every place in a JSON value where something else could be."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from _spots(inner)


@pytest.mark.parametrize("fuzz", [any_bytes, any_text, any_line, any_frame])
def test_nothing_crashes(fuzz: Callable[[], None]) -> None:
    end = time.monotonic() + SECONDS / 4
    while time.monotonic() < end:
        fuzz()
