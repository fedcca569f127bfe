"""Files that are not what an export wrote: each is refused with the part that is wrong, and nothing ever crashes."""

from __future__ import annotations

import io
import json
import random
import re
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runstream.errors import BadRequestError, NotExistError
from runstream.snapshots import manifest as m
from runstream.snapshots.container import entries
from runstream.snapshots.signing import SigningKey, make_keys, read_public_key
from runstream.snapshots.verify import VerifyReport, verify
from tests.snapshots.files import (
    Lines,
    described_anew,
    generated,
    gzip_bomb,
    pack,
    parts,
    rewritten,
    small_segments,
    write,
)


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot of three partitions and some dozen segments."""
    with monkeypatch.context() as patched:
        small_segments(patched)
        write(tmp_path / "good", generated())
    return tmp_path / "good"


def found(path: Path, content: bytes) -> VerifyReport:
    path.write_bytes(content)
    return verify(path)


def test_any_changed_byte_is_found(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    chosen = random.Random(1).sample(range(len(content)), 1500)  # noqa: S311  # which bytes, not a secret
    for at in chosen:
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        report = found(tmp_path / "x", bytes(changed))
        assert not report.good, f"a change of byte {at} went undetected"
        assert report.problems[0].part


def test_any_cut_is_found(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    with good.open("rb") as file:
        ends = [entry.end for entry in entries(file, len(content))]
    for size in {*range(0, len(content), 997), *ends, *(end - 1 for end in ends), len(content) - 1, len(content) - 512}:
        report = found(tmp_path / "x", content[:size])
        assert not report.good
        assert "ends after" in str(report.problems[0]) or "it is" in str(report.problems[0]), report.problems


def test_bytes_after_the_end_are_found(good: Path, tmp_path: Path) -> None:
    for more in (b"\0", bytes(512), b"x" * 1024):
        assert "goes on behind its end" in str(found(tmp_path / "x", good.read_bytes() + more).problems[0])


def test_every_missing_file_is_named(good: Path, tmp_path: Path) -> None:
    files = parts(good)
    for name in files:
        rest = {key: content for key, content in files.items() if key != name}
        report = verify(pack(tmp_path / "x", rest))
        assert not report.good
        if name.startswith("segments/"):
            assert [str(problem) for problem in report.problems] == [f"{name}: it is missing"]


def test_swapped_and_doubled_segments_are_named(good: Path, tmp_path: Path) -> None:
    files = parts(good)
    first, second = [name for name in files if name.startswith("segments/001")][:2]
    contents = {**files, first: files[second], second: files[first]}
    assert verify(pack(tmp_path / "x", contents)).problems[0].part in (first, second)
    moved = {**{key: files[key] for key in m.TEXTS}, second: files[second], **files}
    assert not verify(pack(tmp_path / "x", moved)).good
    content = good.read_bytes()
    with good.open("rb") as file:
        entry = next(entry for entry in entries(file, len(content)) if entry.name == first)
    doubled = content[: entry.end] + content[entry.offset - 512 : entry.end] + content[entry.end :]
    assert str(found(tmp_path / "x", doubled).problems[0]) == f"{first}: it is there twice"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "segments/../x", "a//b", "~/x\n", "segments/./x"])
def test_names_that_lead_elsewhere_are_refused(good: Path, tmp_path: Path, name: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.GNU_FORMAT) as tar:
        for key, content in {**parts(good), name: b"x"}.items():
            info = tarfile.TarInfo(key)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert not found(tmp_path / "x", out.getvalue()).good


def test_links_and_folders_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:", format=tarfile.GNU_FORMAT) as tar:
            info = tarfile.TarInfo("README.md")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        problem = str(found(tmp_path / "x", out.getvalue()).problems[0])
        assert "it is not a plain file" in problem or "is no name of a snapshot" in problem


def test_other_files_are_no_snapshots(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as tar:
        tar.add(__file__, "code.py")
    for content in (b"", b"x", bytes(512), bytes(10240), b"PK\3\4" * 1000, gzip_bomb(), out.getvalue(), b"{}" * 9999):
        report = found(tmp_path / "x", content)
        assert not report.good
        assert report.header is None


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(NotExistError):
        verify(tmp_path / "nothing")
    with pytest.raises(BadRequestError, match="cannot be read"):
        verify(tmp_path)


def test_a_newer_format_is_reported_as_newer(good: Path, tmp_path: Path) -> None:
    files = parts(good)
    for name in (m.SNAPSHOT, m.MANIFEST):
        newer = {**files, name: json.dumps({"format": 3, "unheard": "of"}).encode()}
        report = verify(pack(tmp_path / "x", {**newer, m.END: m.end_of(newer[m.MANIFEST])}))
        assert str(report.problems[0]) == f"{name}: the snapshot has format 3, this Runstream knows up to 2"


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": []},
        {"positions": [1, 2, 3]},
        {"commits": 1},
        {"events": {"RunStarted": 7}},
        {"unreadable": 3},
        {"segments": []},
        {"segments": 1},
        {"objects": [{"name": "objects/x", "objects": 1, "bytes": 1, "file_bytes": 1, "file_sha256": "0" * 64}]},
        {"commits": 10**400},
        {"commits": -1},
        {"events": {"x" * 1000: 1}},
        {"public_key": "nonsense"},
        {"texts": {}},
        {"left_out": None},
        {"format": "1"},
        {"format": None},
    ],
)
def test_a_manifest_that_says_something_else(good: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    assert not verify(pack(tmp_path / "x", described_anew(parts(good), **changes))).good


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"format":1e999}', b"\xff", b'{"format":1}', b"{}" * 9]
)
def test_texts_that_are_something_else(good: Path, tmp_path: Path, content: bytes) -> None:
    files = parts(good)
    for name in (m.SNAPSHOT, m.MANIFEST):
        changed = {**files, name: content}
        report = verify(pack(tmp_path / "x", {**changed, m.END: m.end_of(changed[m.MANIFEST])}))
        assert report.problems[0].part == name


def test_signatures(good: Path, tmp_path: Path) -> None:
    public, other = make_keys(tmp_path / "a.pem"), make_keys(tmp_path / "b.pem")
    write(tmp_path / "signed", key=SigningKey.read(tmp_path / "a.pem"))
    files = parts(tmp_path / "signed")
    key = read_public_key(public)
    assert verify(tmp_path / "signed", public_key=key).good
    wrong = {**files, m.SIGNATURE: SigningKey.read(tmp_path / "b.pem").sign(files[m.MANIFEST])}
    for changed, problem in (
        (wrong, "the signature is wrong"),
        ({**files, m.SIGNATURE: b""}, "the signature is wrong"),
        ({**files, m.SIGNATURE: bytes(65)}, "more than 64 are not read"),
        ({k: v for k, v in files.items() if k != m.SIGNATURE}, "signature.ed25519: it is missing"),
        (described_anew(files), "the snapshot is not signed"),
        ({**described_anew(files)} | {m.SIGNATURE: bytes(64)}, "behind END"),
    ):
        assert problem in str(verify(pack(tmp_path / "x", changed), public_key=key).problems[0])
    report = verify(tmp_path / "signed", public_key=read_public_key(other))
    assert "it was signed with the key SHA256:" in str(report.problems[0])
    assert not verify(good, public_key=key).good


def test_keys_that_are_none(tmp_path: Path) -> None:
    public = make_keys(tmp_path / "a.pem")
    (tmp_path / "x.pem").write_text("nonsense")
    for path in (tmp_path / "x.pem", public, tmp_path / "none.pem", tmp_path):
        with pytest.raises(BadRequestError):
            SigningKey.read(path)
    for path in (tmp_path / "x.pem", tmp_path / "a.pem", tmp_path / "none.pem"):
        with pytest.raises(BadRequestError):
            read_public_key(path)
    with pytest.raises(Exception, match="is there already"):
        make_keys(tmp_path / "a.pem")


def drop(partition: int, at: int) -> Callable[[Lines], object]:
    return lambda lines: lines[partition].pop(at)


def edit(kind: str, **changes: object) -> Callable[[Lines], object]:
    """Change the first event of this type."""

    def change(lines: Lines) -> None:
        events = [e for found in lines.values() for line in found for e in line["commit"]["events"]]
        next(event for event in events if event["type"] == kind).update(changes)

    return change


def edit_commit(**changes: object) -> Callable[[Lines], object]:
    return lambda lines: lines[1][5]["commit"].update(changes)


def edit_line(**changes: object) -> Callable[[Lines], object]:
    return lambda lines: lines[1][5].update(changes)


REFERS = "it refers to a run or run config that is not before it"


@pytest.mark.parametrize(
    ("change", "place", "problem", "count"),
    [
        (lambda lines: lines[1].append(lines[1][-1]), (1, 36), "version 3 comes where version 4 is next", 1),
        (lambda lines: lines[2].reverse(), (2, 1), "version 3 comes where version 1 is next", 67),
        (drop(0, 0), (0, 2), REFERS, 16),
        (drop(1, 1), (1, 8), "version 2 comes where version 1 is next", 1),
        (edit("RunCreated", run_config="other"), (0, 3), REFERS, 1),
        (edit("ExecutorTaskAssigned", run_id="other"), (0, 19), REFERS, 1),
        (
            edit("RunCreated", group="/project/elsewhere/x"),
            *((0, 3), "its group '/project/elsewhere/x' belongs on partition 1", 1),
        ),
        (edit("RunCreated", group="nowhere"), (0, 3), "run group 'nowhere' is not valid", 1),
        (edit("RunStarted", type="RunExploded"), (0, 11), "Unknown event type 'RunExploded' - at `$.events[1]`", 1),
        (
            edit("RunStarted", version=2),
            *((0, 11), "this Runstream reads up to 1: it is newer - at `$.events[1]`", 1),
        ),
        (edit("RunStarted", more=1), (0, 11), "Object contains unknown field `more` - at `$.events[1]`", 1),
        (edit("RunCreated", name=None), (0, 3), "Expected `str`, got `null` - at `$.events[0].name`", 1),
        (edit("RunNumbered", counter=2**80), (0, 11), "Expected `int`, got `float` - at `$.events[0].counter`", 1),
        (edit_commit(version=10**30), (1, 6), "cannot be read: Expected `int`, got `float` - at `$.version`", 1),
        (edit_commit(version=2**63), (1, 6), f"version {2**63} comes where version 1 is next", 2),
        (
            edit_commit(aggregate="run/other"),
            (1, 6),
            "cannot be read: its aggregate 'run/other' is not that of its subject",
            1,
        ),
        (edit_commit(time="yesterday"), (1, 6), "cannot be read: Invalid RFC3339 encoded datetime - at `$.time`", 1),
        (edit_line(subject="nothing.x"), (1, 6), "subject 'shop.runs.1.1.nothing.x' is not one of the log", 2),
        (edit_line(subject="run.a.b.c"), (1, 6), "subject 'shop.runs.1.1.run.a.b.c' is not one of the log", 2),
        (
            edit_line(subject="x" * 1000),
            *((1, 6), "it is not a line of a segment (Expected `str` of length <= 512 - at `$.subject`)", 1),
        ),
        (
            edit_line(stored_at="2026-01-01"),
            *((1, 6), "it is not a line of a segment (Invalid RFC3339 encoded datetime - at `$.stored_at`)", 1),
        ),
        (edit_line(commit=[]), (1, 6), "cannot be read: Expected `object`, got `array`", 1),
    ],
)
def test_commits_that_do_not_make_sense(
    good: Path, change: Callable[[Lines], object], place: tuple[int, int], problem: str, count: int
) -> None:
    """The first place at which something is wrong is named first; all others are behind it, and follow from it."""
    report = rewritten(good, change)
    first, *others = report.problems
    assert report.problem_count == count, report.problems
    assert re.fullmatch(rf"segments/{place[0]:03}/0{{11}}1-\d{{12}}\.jsonl\.zst", first.part), first
    assert (first.line, first.what[-len(problem) :]) == (place[1], problem)
    assert first.what.startswith(("it cannot be read: the message at 1:", problem))
    assert all((found.part, found.line) > (first.part, first.line) for found in others), report.problems


def test_nothing_changed_is_nothing_found(good: Path) -> None:
    report = rewritten(good, lambda lines: None)
    assert report.good, report.problems


def test_many_problems_are_counted_and_some_are_told(tmp_path: Path) -> None:
    write(good := tmp_path / "s", generated(200))

    def spoil(lines: Lines) -> None:
        for line in (line for found in lines.values() for line in found):
            line["commit"]["version"] += 1

    report = rewritten(good, spoil)
    assert len(report.problems) == 100
    assert report.problem_count > 100
    report = rewritten(
        good, lambda lines: [line["commit"].update(time=1) for found in lines.values() for line in found]
    )
    assert report.problem_count == report.commits > len(report.problems) == 60


def test_bombs_take_little_memory(good: Path, tmp_path: Path) -> None:
    files = parts(good)
    bomb = gzip_bomb()
    name = next(name for name in files if name.startswith("segments/"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    manifest = json.loads(files[m.MANIFEST])
    for said in (manifest["segments"][0]["bytes"], 200 << 20, 1 << 50):
        manifest["segments"][0] |= {"file_bytes": len(bomb), "file_sha256": _sha256(bomb), "bytes": said}
        changed = described_anew({**files, name: bomb}, segments=manifest["segments"])
        report = verify(pack(tmp_path / "x", changed))
        assert report.problems[0].part == name, report.problems
    assert not verify(pack(tmp_path / "x", {**files, m.MANIFEST: b" " * (65 << 20)})).good
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def _sha256(content: bytes) -> str:
    return m.end_of(content).split()[0].decode()


def test_impossible_sizes_are_refused(good: Path, tmp_path: Path) -> None:
    content = bytearray(good.read_bytes())
    for size in (b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-0000000001\0", b" 1234567890\0"):
        content[124:136] = size
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
        assert not found(tmp_path / "x", bytes(content)).good
