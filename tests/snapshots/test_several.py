"""One file with the logs of two services: runs, and in a folder users, projects and secrets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import uvloop

from runstream.commits import LogPosition
from runstream.errors import BadRequestError
from runstream.snapshots import manifest as m
from runstream.snapshots.compare import compare
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.partial_file import resume
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.signing import SigningKey, make_keys, read_public_key
from runstream.snapshots.verify import verify
from tests.log.memory import MemoryLog
from tests.snapshots.files import described_anew, generated, pack, parts, small_segments, users_log, write

ADA, BOB = "ada", "bob"


@pytest.fixture(scope="module")
def users() -> MemoryLog:
    return uvloop.run(users_log(ADA, BOB))


def test_a_file_holds_both_logs(tmp_path: Path, users: MemoryLog) -> None:
    public = read_public_key(make_keys(tmp_path / "key.pem"))
    runs = write(tmp_path / "both", also=users, key=SigningKey.read(tmp_path / "key.pem"))
    report = verify(tmp_path / "both", public_key=public)
    assert report.good, report.problems
    assert [one.header.service for one in report.all if one.header] == ["runs", "config"]
    names = [*parts(tmp_path / "both")]
    folder = ["config/snapshot.json", "config/segments/000/000000000001-000000000004.jsonl.zst", "config/manifest.json"]
    assert names[:6] == [*m.TEXTS, *folder]
    write(tmp_path / "runs")
    write(tmp_path / "users", users)
    with (
        open_snapshot(tmp_path / "both", public_key=public) as both,
        open_snapshot(tmp_path / "runs") as one,
        open_snapshot(tmp_path / "users") as other,
    ):
        (config,) = both.also
        assert both.manifest == runs
        assert [both.header.format, one.header.format, config.header.format] == [2, 1, 1]
        assert config.signer == both.signer != ""
        assert [*config.messages(0)] == [*other.messages(0)]
        assert [*both.messages(1)] == [*one.messages(1)]
        assert compare(both, both).equal
        assert compare(both, one).differences == ["only the first has the log of config"]
        assert compare(other, both).only == (0, runs.commits)


def test_a_position_is_one_of_a_single_log(tmp_path: Path, users: MemoryLog) -> None:
    with pytest.raises(BadRequestError, match="a position is one of a single service's log"):
        write(tmp_path / "both", also=users, until=LogPosition(1, (1, 1, 1)))


def test_an_export_of_both_is_resumed_once_it_has_all_users(
    tmp_path: Path, users: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_segments(monkeypatch)
    path = tmp_path / "both"
    write(path, also=users)
    whole, content = parts(path), path.read_bytes()
    with open_snapshot(path) as snapshot:
        begun = snapshot.places[snapshot.manifest.segments[0].name].offset - 512
    outcomes = []
    for size in range(0, len(content) - 2048, 1024):
        path.write_bytes(content[:size])
        with path.open("r+b") as file:
            resumed = resume(file)
        outcomes.append((size, resumed is not None))
        write(path, also=users, resumed=resumed)
        again = parts(path)
        assert {name: again[name] for name in again if "segments/" in name} == {
            name: whole[name] for name in whole if "segments/" in name
        }
        assert again["config/manifest.json"] == whole["config/manifest.json"]
        assert verify(path).good
    assert outcomes == [(size, size >= begun) for size, _ in outcomes]
    assert {kept for _, kept in outcomes} == {True, False}


def test_users_that_came_damaged_are_exported_again(tmp_path: Path, users: MemoryLog) -> None:
    path = tmp_path / "both"
    write(path, also=users)
    with open_snapshot(path) as snapshot:
        place = next(iter(snapshot.also[0].places.values()))
    content = bytearray(path.read_bytes()[:-2048])
    content[place.offset + place.size // 2] ^= 1
    path.write_bytes(content)
    with path.open("r+b") as file:
        assert resume(file) is None
    assert path.stat().st_size == 0


def test_what_is_wrong_in_the_folder_is_named_with_it(tmp_path: Path, users: MemoryLog) -> None:
    write(tmp_path / "both", also=users)
    write(tmp_path / "other", also=uvloop.run(users_log("eve")))
    good, other = parts(tmp_path / "both"), parts(tmp_path / "other")
    inner = [name for name in good if name.startswith("config/")]

    def problem(files: dict[str, bytes]) -> str:
        report = verify(pack(tmp_path / "bad", files))
        assert not report.good
        return str(report.problems[0])

    segment = next(name for name in inner if "segments/" in name)
    changed = bytearray(good[segment])
    changed[len(changed) // 2] ^= 1
    assert problem({**good, segment: bytes(changed)}).startswith(segment)
    for name in inner:
        assert "config/" in problem({k: v for k, v in good.items() if k != name})
    ordered = ["config/snapshot.json", next(n for n in other if n.startswith("config/seg")), "config/manifest.json"]
    mixed = {name: good[name] for name in m.TEXTS}
    mixed |= {name: other[name] for name in ordered}
    mixed |= {name: good[name] for name in good if name not in {*m.TEXTS, *inner}}
    assert problem(mixed) == "config/manifest.json: it was changed: its SHA-256 differs from the manifest"
    late = {**{k: v for k, v in good.items() if k not in inner and k != m.MANIFEST and k != m.END}}
    late |= {name: good[name] for name in (*inner, m.MANIFEST, m.END)}
    assert "it is in the place of a file in config/" in problem(late)
    assert "its services differ" in problem(described_anew(good, logs={}))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"also": ["config"]}, "format 1 cannot have the services runs, config"),
        ({"format": 2}, "format 2 cannot have the services runs"),
        ({"format": 2, "also": ["runs"]}, "format 2 cannot have the services runs, runs"),
        ({"format": 2, "also": ["../x"]}, "it cannot be read"),
    ],
)
def test_services_that_do_not_fit_the_format(tmp_path: Path, changes: dict[str, object], what: str) -> None:
    write(tmp_path / "s", generated(3))
    files = parts(tmp_path / "s")
    files[m.SNAPSHOT] = json.dumps({**json.loads(files[m.SNAPSHOT]), **changes}).encode()
    report = verify(pack(tmp_path / "bad", described_anew(files)))
    assert str(report.problems[0]).startswith(f"{m.SNAPSHOT}: {what}")


def test_a_folder_of_another_deployment_is_refused(tmp_path: Path, users: MemoryLog) -> None:
    write(tmp_path / "both", also=users)
    files = parts(tmp_path / "both")
    for changes, problem in (({"namespace": "another"}, "not of the service config"), ({"service": "runs"}, "config")):
        header = json.dumps({**json.loads(files["config/snapshot.json"]), **changes}).encode()
        manifest = json.loads(files["config/manifest.json"])
        manifest["texts"]["snapshot.json"] = hashlib.sha256(header).hexdigest()
        inner = json.dumps(manifest).encode()
        bad = {**files, "config/snapshot.json": header, "config/manifest.json": inner}
        bad = described_anew(bad, logs={"config": hashlib.sha256(inner).hexdigest()})
        with pytest.raises(SnapshotError, match=problem) as caught, open_snapshot(pack(tmp_path / "bad", bad)):
            pass
        assert caught.value.part == "config/snapshot.json"
