from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from benchmarks.generate import BEGAN

from runstream.codec import decode
from runstream.commits import LogPosition
from runstream.errors import BadRequestError
from runstream.snapshots import manifest as m
from runstream.snapshots.partial_file import resume
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.signing import SigningKey, fingerprint, make_keys, read_public_key
from runstream.snapshots.verify import verify
from tests.snapshots.files import CREATED, generated, memory_log, pack, parts, small_segments, write
from tests.snapshots.messages import played_messages


def test_a_snapshot_holds_the_log(tmp_path: Path) -> None:
    manifest = write(tmp_path / "s", memory_log())
    messages = played_messages()
    with open_snapshot(tmp_path / "s") as snapshot:
        found = list(snapshot.messages(0))
        assert [commit.commit for commit in snapshot.commits(0)] == [decode(message).commit for message in messages]
        assert snapshot.manifest == manifest
        assert snapshot.header.created == CREATED
        assert snapshot.signer == ""
    assert [(x.subject, x.position, x.data) for x in found] == [(x.subject, x.position, x.data) for x in messages]
    assert manifest.positions == (len(messages),)
    counted = Counter(type(event).__name__ for message in messages for event in decode(message).commit.events)
    assert manifest.events == counted
    assert "step logs" in manifest.left_out


def test_what_was_exported_is_verified(tmp_path: Path) -> None:
    write(tmp_path / "s")
    told: list[tuple[int, int]] = []
    report = verify(tmp_path / "s", tell=lambda done, total: told.append((done, total)))
    assert report.good, report.problems
    assert report.manifest is not None
    assert report.commits == report.manifest.commits == told[-1][0] == told[-1][1]


def test_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch)
    write(tmp_path / "s", memory_log(2, b"no JSON", b"[]"))
    alone, shared = verify(tmp_path / "s", processes=1), verify(tmp_path / "s", processes=2)
    assert len(shared.problems) == 2
    assert alone.commits == shared.commits
    assert sorted(map(str, alone.problems)) == sorted(map(str, shared.problems))


def test_an_empty_log(tmp_path: Path) -> None:
    manifest = write(tmp_path / "s", generated(0, 1), until=LogPosition(1, (0,)))
    assert (manifest.positions, manifest.commits, manifest.segments) == ((0,), 0, ())
    assert verify(tmp_path / "s").good


def test_up_to_a_position(tmp_path: Path) -> None:
    log = generated()
    manifest = write(tmp_path / "s", log, until=LogPosition(1, (3, 0, 17)))
    assert manifest.positions == (3, 0, 17)
    assert verify(tmp_path / "s").good


@pytest.mark.parametrize("text", ["2:3,0,17", "1:3,0", "1:3,0,1000000", "1:1000000,0,0"])
def test_a_position_that_the_log_does_not_have(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadRequestError, match="the log has not reached"):
        write(tmp_path / "s", generated(), until=LogPosition.parse(text))


def test_up_to_a_time(tmp_path: Path) -> None:
    until = BEGAN + timedelta(milliseconds=41)
    whole, manifest = write(tmp_path / "whole"), write(tmp_path / "s", until=until)
    with open_snapshot(tmp_path / "whole") as snapshot:
        commits = [[*snapshot.commits(partition)] for partition in range(3)]
    for partition, end in enumerate(manifest.positions):
        assert all(stored.commit.time <= until for stored in commits[partition][:end])
        assert commits[partition][end].commit.time > until
    assert 0 < manifest.commits < whole.commits
    assert verify(tmp_path / "s").good


def test_unreadable_commits_are_exported_and_reported(tmp_path: Path) -> None:
    write(tmp_path / "s", memory_log(1, b"no JSON", b'{"events":[{"type":"RunExploded","version":1}]}'))
    end = len(played_messages())
    report = verify(tmp_path / "s")
    assert report.manifest is not None
    assert report.manifest.unreadable == 1
    assert [problem.line for problem in report.problems] == [end + 1, end + 2]
    assert "not JSON" in report.problems[0].what
    with pytest.raises(BadRequestError, match=r"line \d+: .* \(and 1 more problem\)"):
        report.require_good()


def test_signed(tmp_path: Path) -> None:
    public = make_keys(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    write(tmp_path / "s", key=SigningKey.read(tmp_path / "key.pem"))
    report = verify(tmp_path / "s", public_key=read_public_key(public))
    assert report.good, report.problems
    assert report.signer == fingerprint(read_public_key(public))
    assert verify(tmp_path / "s").signer == report.signer


@pytest.mark.parametrize("cut", [1, 2, 5, 7, 100])
def test_an_interrupted_export_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    small_segments(monkeypatch)
    path = tmp_path / "s"
    whole = write(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(max(size - cut * size // 12, 0))
        resumed = resume(file)
    manifest = write(path, resumed=resumed)
    assert (manifest.positions, manifest.events) == (whole.positions, whole.events)
    assert {found.sha256 for found in manifest.segments} == {found.sha256 for found in whole.segments}
    report = verify(path)
    assert report.good, report.problems
    assert (resumed is None) == (cut == 100)
    assert resumed is None or (len(resumed.segments) > 0) == (cut < 9)


def test_what_is_not_an_interrupted_export_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write(path)
    with path.open("r+b") as file, pytest.raises(BadRequestError, match="the export is complete"):
        resume(file)
    assert verify(path).good
    for content in (b"something else" * 100, b"short"):
        path.write_bytes(content)
        with path.open("r+b") as file, pytest.raises(BadRequestError, match="snapshot"):
            resume(file)
        assert path.read_bytes() == content
    newer = parts(path := pack(tmp_path / "n", {"README.md": b"", "event-types.md": b"", m.SNAPSHOT: b'{"format":3}'}))
    assert newer
    with path.open("r+b") as file, pytest.raises(BadRequestError, match="format 3"):
        resume(file)


def test_what_came_damaged_is_exported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch)
    path = tmp_path / "s"
    write(path)
    names = [name for name in parts(path) if name.startswith("segments/")]
    with open_snapshot(path) as snapshot:
        third = snapshot.places[names[2]]
    with path.open("r+b") as file:
        file.truncate(third.end + 4000)
        file.seek(third.offset + third.size // 2)
        file.write(b"\0\0\0\0")
        resumed = resume(file)
    assert resumed is not None
    assert len(resumed.segments) == 2
    write(path, resumed=resumed)
    assert verify(path).good
