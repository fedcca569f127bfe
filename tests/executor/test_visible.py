"""Which paths a sandbox shows and hides, computed before one is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from runstream.errors import BadRequestError
from runstream.executor.executor import host_rules
from runstream.executor.sandbox import Visible, accounts, task_user
from runstream.executor.task_root import TaskUser
from runstream.executor.workdir import ExecutorPlace, TaskFolder
from runstream.service.configuration import load_settings
from runstream.settings import ExecutorSettings, Settings


def test_places_of_the_service_are_masked_where_a_visible_place_contains_them(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path / "data",
        file=Path("/etc/ci/settings.yml"),
        secrets_key_file=Path("/srv/keys/key"),
        executor=ExecutorSettings(sandbox_readonly=("/srv",)),
    )
    visible = host_rules(settings, ExecutorPlace(tmp_path / "data")).visible
    made = visible.sandbox(TaskFolder(tmp_path / "task"), TaskUser(5, 6), ())
    assert set(made.masked) == {"/etc/ci/settings.yml", "/etc/runstream", "/srv/keys/key"}
    assert "/srv" in made.readonly
    assert (made.home, made.tmp) == (str(tmp_path / "task/home"), str(tmp_path / "task/tmp"))


@pytest.mark.parametrize("path", ["data", "data/objects/x", ".", "link", "link/objects", "data/../data"])
def test_a_path_among_the_service_s_files_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    visible = Visible(hidden=(tmp_path / "data",))
    visible.require_visible(tmp_path / "database")
    with pytest.raises(BadRequestError, match="hidden from tasks"):
        visible.require_visible(tmp_path / path)


def test_a_task_has_an_account_with_a_uid_of_its_own(tmp_path: Path) -> None:
    for inside, file in accounts(tmp_path):
        lines = Path(file).read_text().splitlines()
        assert Path(inside).parent == Path("/etc")
        assert [line.partition(":")[0] for line in lines if line.split(":")[2] == "1000"] == ["runstream"]


def test_the_user_of_a_task_is_not_root() -> None:
    users = {task_user(f"task {number}").uid for number in range(50)}
    assert 0 not in users


@pytest.mark.parametrize("place", ["/", "/home", "/tmp/", "/proc", "relative", "/srv/../etc"])
def test_places_that_cannot_be_listed_are_refused(place: str) -> None:
    with pytest.raises(BadRequestError, match=r"executor\.sandbox_readonly has"):
        load_settings({}, {"RUNSTREAM_EXECUTOR_SANDBOX_READONLY": f"/srv,{place}"}, None)


@pytest.mark.parametrize("place", ["", "data", "data/objects", "way"])
def test_a_writable_place_with_files_of_the_service_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "data" / "objects").mkdir(parents=True)
    (tmp_path / "way").symlink_to(tmp_path)
    (tmp_path / "apart").mkdir()

    def settings(path: Path) -> Settings:
        return Settings(data_dir=tmp_path / "data", executor=ExecutorSettings(sandbox_writable=(str(path),)))

    with pytest.raises(BadRequestError, match="files of the service"):
        host_rules(settings(tmp_path / place), ExecutorPlace(tmp_path / "data"))
    host_rules(settings(tmp_path / "apart"), ExecutorPlace(tmp_path / "data"))
