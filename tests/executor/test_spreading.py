"""The hint to spread folders is set where the file system supports it, and does no harm elsewhere."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from runstream.executor.workdir import spread


def _file_system(path: Path) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    return str(max(mounts, key=lambda part: len(part.mountpoint)).fstype)


def test_a_folder_of_ext4_takes_the_hint_and_keeps_it(tmp_path: Path) -> None:
    if _file_system(tmp_path) != "ext4":
        pytest.skip("temporary files are not on ext4 here")
    assert spread(tmp_path)
    assert spread(tmp_path)
    (tmp_path / "task").mkdir()
    (tmp_path / "task").rmdir()


def test_another_file_system_does_not_take_it() -> None:
    assert not spread(Path("/proc/self"))


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spread(tmp_path / "nothing")
