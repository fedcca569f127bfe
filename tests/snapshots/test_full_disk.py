"""An export to a disk that gets full: one sentence, and it goes on where it was once there is room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runstream.errors import ConflictError, InternalError
from runstream.snapshots.partial_file import SnapshotFile
from tests.disks import take_all


async def _exported(file: SnapshotFile, *contents: bytes) -> None:
    with file:
        for content in contents:
            await file.send(content)
        await file.finish()


async def _interrupted(file: SnapshotFile) -> None:
    with file:
        await file.send(b"x" * 100_000)
        raise TimeoutError


async def test_an_export_to_a_full_disk_says_so_and_leaves_what_can_be_resumed(small_disk: Path) -> None:
    file = SnapshotFile(small_disk / "all.tar", resuming=False)
    with pytest.raises(InternalError, match="No space left on device") as caught:
        await _exported(file, *(os.urandom(1 << 20) for _ in range(32)))
    assert caught.value.code == "snapshotNotWritten"
    assert "--resume" in caught.value.hint
    assert file.part.stat().st_size >= 1 << 20
    assert not file.path.exists()


async def test_what_is_only_refused_at_the_end_is_told_as_well(small_disk: Path) -> None:
    take_all(small_disk / "ballast")
    file = SnapshotFile(small_disk / "all.tar", resuming=False)
    with pytest.raises(InternalError, match="No space left on device"):
        await _exported(file, b"less than a buffer")
    assert not file.path.exists()


async def test_the_part_of_an_ended_export_is_replaced_and_that_of_a_running_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "all.tar"
    file = SnapshotFile(path, resuming=False)
    with pytest.raises(TimeoutError):
        await _interrupted(file)
    assert file.part.stat().st_size == 100_000
    with SnapshotFile(path, resuming=False) as file:
        assert file.replaced
        for resuming in (False, True):
            with pytest.raises(ConflictError, match="is going on"), SnapshotFile(path, resuming=resuming):
                pytest.fail("it was opened")
        await file.send(b"y")
        await file.finish()
    assert path.read_bytes() == b"y"
    assert not file.part.exists()
