"""A data directory is held by one process at a time, and what the disk refuses is told in one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from runstream.client import ClientError
from runstream.client.client import default_data_dir, local_service
from runstream.errors import BadRequestError, ConflictError, InternalError
from runstream.service.data_dir import DataDir, holder
from tests.forkserver import commands
from tests.service.running import RUNSTREAM


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_it_is_held_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "data"
    assert holder(path) is None
    with DataDir.hold(path) as data_dir:
        assert holder(path) == os.getpid()
        token = data_dir.token()
        with pytest.raises(ConflictError, match=f"in use by process {os.getpid()}"), DataDir.hold(path):
            pass
    assert holder(path) is None
    with DataDir.hold(path) as data_dir:
        assert data_dir.token() == token


def test_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 100, 0))
    with pytest.raises(InternalError, match="0 MB are free") as caught, DataDir.hold(tmp_path):
        pass
    assert caught.value.code == "diskFull"
    assert "--data-dir" in caught.value.hint
    assert not (tmp_path / "runstream.json").exists()


def test_a_folder_that_cannot_be_written(open_path: Path) -> None:
    """Also when root runs the tests: the file system asks for the effective user."""
    open_path.chmod(0o555)
    ours = os.geteuid()
    try:
        if ours == 0:
            os.seteuid(65534)
        for folder in (open_path, open_path / "new"):
            with pytest.raises(InternalError) as caught, DataDir.hold(folder):
                pass
            assert caught.value.code == "dataDirNotWritable"
            assert caught.value.message == f"cannot use the data directory {folder}: Permission denied"
    finally:
        os.seteuid(ours)


@pytest.mark.parametrize("folder_mode", [0o755, 0o700])
def test_the_data_directory_of_another_user_is_reported_as_such(open_path: Path, folder_mode: int) -> None:
    ours, folder = os.geteuid(), open_path
    if ours == 0:
        for name in ("service.json", "lock"):
            (folder / name).write_text("{}")
            (folder / name).chmod(0o600)
        (folder / "runstream.json").write_text('{"format": 1}')
        folder.chmod(folder_mode)
    else:
        folder = Path("/root")
    try:
        if ours == 0:
            os.seteuid(65534)
        with pytest.raises(ClientError) as refused:
            local_service(folder)
        with pytest.raises(InternalError) as unknown:
            holder(folder)
        with pytest.raises(InternalError) as held, DataDir.hold(folder):
            pass
    finally:
        os.seteuid(ours)
    assert (refused.value.code, refused.value.kind) == ("dataDirOfAnotherUser", "forbidden")
    assert refused.value.message == f"the data directory {folder} belongs to user root: permission denied"
    for hint in (refused.value.hint, unknown.value.hint, held.value.hint):
        assert "as user root" in hint
    for hint in (refused.value.hint, unknown.value.hint):
        assert "RUNSTREAM_URL and RUNSTREAM_TOKEN" in hint
    assert unknown.value.message == f"cannot use the data directory {folder}: Permission denied"


@pytest.mark.parametrize("command", ["run list", "status", "stop", "doctor", "serve --detach", "parked list"])
def test_commands_on_the_data_directory_of_another_user(open_path: Path, command: str) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, to make a folder of another user and to read it without root's privileges")
    for name in ("service.json", "lock"):
        (open_path / name).write_text("{}")
        (open_path / name).chmod(0o600)
        os.chown(open_path / name, 65534, 65534)
    os.chown(open_path, 65534, 65534)
    dropped = "-dac_override,-dac_read_search"
    words = ["setpriv", "--bounding-set", dropped, "--inh-caps", dropped, str(RUNSTREAM), "--data-dir", str(open_path)]
    done = subprocess.run([*words, *command.split()], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert f"the data directory {open_path}" in error
    assert "permission denied" in error.lower()
    assert "as user nobody" in hint


@pytest.mark.parametrize("text", ["", "[]", '{"made_by": "1"}', "\0"])
def test_a_marker_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "runstream.json").write_text(text)
    with pytest.raises(BadRequestError), DataDir.hold(tmp_path):
        pass


def test_the_default_is_in_the_users_data_folder(tmp_path: Path) -> None:
    assert default_data_dir({"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "runstream"
    assert default_data_dir({}) == Path.home() / ".local" / "share" / "runstream"


def test_service_json_is_for_this_user_alone_and_goes_away(tmp_path: Path) -> None:
    with DataDir.hold(tmp_path) as data_dir:
        with data_dir.announced("http://127.0.0.1:1", "secret"):
            assert (tmp_path / "service.json").stat().st_mode & 0o777 == 0o600
        assert not (tmp_path / "service.json").exists()


@pytest.mark.parametrize(
    ("where", "why", "hint"),
    [
        ("/proc/x", "No such file or directory", "no folder can be made there: give another one with --data-dir"),
        ("file", "File exists", "it is or lies below a file: give a folder with --data-dir"),
        ("file/below", "Not a directory", "it is or lies below a file: give a folder with --data-dir"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--detach"]])
def test_a_data_directory_that_cannot_be_made(
    tmp_path: Path, where: str, why: str, hint: str, options: list[str]
) -> None:
    (tmp_path / "file").touch()
    path = Path(where) if where.startswith("/") else tmp_path / where
    done = subprocess.run(
        [commands() / "runstream", "--data-dir", path, "serve", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"error: cannot use the data directory {path}: {why}",
        f"hint: {hint}",
    ]


def test_a_start_that_fails_leaves_nothing_in_a_new_folder(tmp_path: Path) -> None:
    ours = tmp_path / "data"
    ours.mkdir()
    for path, stays in ((tmp_path / "new", False), (ours, True)):
        with pytest.raises(RuntimeError):
            _fail_to_start(path, served=False)
        assert path.exists() == stays
        assert not stays or not [*path.iterdir()]


def test_the_keys_of_another_deployment_may_be_in_a_new_folder_and_stay_when_a_start_fails(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "secrets.key").write_text("kept")
    for _ in range(2):
        with pytest.raises(RuntimeError):
            _fail_to_start(path, served=False)
        assert [entry.name for entry in path.iterdir()] == ["secrets.key"]
    with DataDir.starting(path) as data_dir:
        data_dir.keep()
    assert (path / "secrets.key").read_text() == "kept"


def test_a_start_that_fails_keeps_what_was_there_and_what_has_served(tmp_path: Path) -> None:
    for served in (True, False):
        with pytest.raises(RuntimeError):
            _fail_to_start(tmp_path / "data", served=served)
        assert (tmp_path / "data" / "token").read_text()
        assert (tmp_path / "data" / "postgres" / "deep").exists()


def _fail_to_start(path: Path, *, served: bool) -> None:
    with DataDir.starting(path) as data_dir:
        data_dir.token()
        (path / "postgres" / "deep").mkdir(parents=True, exist_ok=True)
        if served:
            data_dir.keep()
        raise RuntimeError


@pytest.mark.parametrize("options", [[], ["--detach"]])
def test_serve_without_its_servers_leaves_nothing_behind(open_path: Path, options: list[str]) -> None:
    path = open_path / "data"
    away = ["--nats-url", "nats://127.0.0.1:1", "--wait-for-dependencies", "1ms"]
    away += [] if options else ["--database-url", "postgresql://127.0.0.1:1/none"]
    words = [str(commands() / "runstream"), "--data-dir", str(path), "serve", *away, "--port", "0", *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "serve.log" not in done.stderr
    assert not path.exists()
