"""A snapshot written by any released version stays readable."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from runstream.config_folding import ConfigFold
from runstream.events.registry import types_of
from runstream.projections.fold import PartitionFold
from runstream.snapshots.objects import object_chunks, objects
from runstream.snapshots.partial_file import resume
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.signing import read_public_key
from runstream.snapshots.verify import verify
from tests.snapshots.make_golden import GOLDEN, OBJECTS, TASK

KEPT = sorted(GOLDEN.glob("*.tar"))


def test_this_version_has_one() -> None:
    assert GOLDEN / f"{version('runstream')}.tar" in KEPT, "run: python -m tests.snapshots.make_golden"


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_it_is_good(path: Path) -> None:
    report = verify(path, public_key=read_public_key(path.with_suffix(".pem")))
    assert report.good, report.problems
    assert report.commits > 50


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_it_is_folded(path: Path) -> None:
    with open_snapshot(path) as snapshot:
        folds = [PartitionFold(partition, 1) for partition in range(snapshot.header.partitions)]
        for fold in folds:
            for stored in snapshot.commits(fold.partition):
                assert not fold.needs([stored])
                fold.apply(stored)
        runs = [tracked.state for fold in folds for tracked in fold.runs.values()]
        kept = {found.path: b"".join(object_chunks(snapshot, found)) for found in objects(snapshot)}
    assert kept == {path: content for path, content in OBJECTS.items() if path in kept}
    assert {path for path in OBJECTS if TASK in path} <= kept.keys()
    archived = {"0.1.0": 6}.get(path.stem, 8)
    assert len(runs) == archived + 2
    assert sum(run.archived for run in runs) == archived
    assert sum(run.finished for run in runs) == archived


def test_this_versions_has_every_type_of_event() -> None:
    """A new type needs a new golden snapshot: of the next version, or of this one while it is not released."""
    with open_snapshot(GOLDEN / f"{version('runstream')}.tar") as snapshot:
        assert snapshot.manifest.events.keys() == types_of("runs").keys()


def test_this_versions_of_both_has_every_type_of_event_of_config_and_all_of_them_fit() -> None:
    with open_snapshot(GOLDEN / f"{version('runstream')}-both.tar") as snapshot:
        (config,) = snapshot.also
        fold = ConfigFold(config.skips())
        for message in config.messages(0):
            fold.take(message)
    assert fold.all_parked == {}
    assert {one.name for one in fold.state.users.values()} == {"a", "c"}
    assert config.manifest.events.keys() == types_of("config").keys() - {"CommitSkipped"}


def test_this_versions_has_a_skipped_and_a_parked_commit() -> None:
    report = verify(GOLDEN / f"{version('runstream')}.tar")
    assert (report.skipped, report.parked) == (1, 1)


def test_an_interrupted_one_of_each_version_is_resumed(tmp_path: Path) -> None:
    for path in KEPT:
        (tmp_path / "x").write_bytes(path.read_bytes()[:-2000])
        with (tmp_path / "x").open("r+b") as file:
            found = resume(file)
        assert found is not None
        assert len(found.segments) == 2
