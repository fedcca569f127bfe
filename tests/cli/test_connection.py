"""Which service a command talks to, and its message when there is none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError

from runstream.cli.commands import EXAMPLES
from runstream.cli.connection import (
    COMMANDS,
    GlobalOptions,
    find_service,
    program_command,
    set_global_options,
    waiting_printer,
    with_program,
)
from runstream.service.edge import usage_error
from runstream.service.main import app
from tests.cli.conftest import Command
from tests.cli.service import Service
from tests.gateway.world import TOKEN


def _local(folder: Path, url: str, token: str = TOKEN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "service.json").write_text(json.dumps({"url": url, "token": token, "pid": 4711}))
    return folder


def test_options_win_over_the_environment_and_that_over_the_local_service(tmp_path: Path) -> None:
    here = _local(tmp_path / "here", "http://127.0.0.1:1", "local")
    there = _local(tmp_path / "share" / "runstream", "http://127.0.0.1:2", "default")
    environ = {"XDG_DATA_HOME": str(tmp_path / "share")}
    assert find_service(GlobalOptions(), environ).token == "default"
    assert find_service(GlobalOptions(), {**environ, "RUNSTREAM_DATA_DIR": str(here)}).token == "local"
    assert find_service(GlobalOptions(data_dir=here), environ).url == "http://127.0.0.1:1"
    assert find_service(GlobalOptions(data_dir=here, token="mine"), environ).token == "mine"
    elsewhere = {**environ, "RUNSTREAM_URL": "https://ci.example.com", "RUNSTREAM_TOKEN": "theirs"}
    assert find_service(GlobalOptions(), elsewhere).token == "theirs"
    assert find_service(GlobalOptions(data_dir=here), elsewhere).token == "local"
    assert find_service(GlobalOptions(url="http://127.0.0.1:2"), environ).token == "default"
    assert find_service(GlobalOptions(url="http://127.0.0.1:3"), environ).token == ""
    assert find_service(GlobalOptions(data_dir=there), {}).pid == 4711


def test_a_data_directory_that_is_named_goes_before_a_url_of_the_environment(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNSTREAM_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RUNSTREAM_DATA_DIR", str(tmp_path / "other"))
    folder = tmp_path / "data dir"
    done = command("--data-dir", str(folder), "run", "list")
    assert done.err.splitlines()[0] == f"error: no service is running in {folder}"
    assert f"hint: start one with `runstream --data-dir '{folder}' serve`" in done.err


@pytest.mark.parametrize(
    ("options", "environment", "text", "shown"),
    [
        ({}, {}, "see `runstream run list`", "see `runstream run list`"),
        ({"data_dir": Path("a b")}, {}, "see `runstream run list`", "see `runstream --data-dir 'a b' run list`"),
        ({"data_dir": Path("a")}, {}, "then: runstream doctor", "then: runstream --data-dir a doctor"),
        ({"data_dir": Path("a")}, {}, "`runstream init` or `runstream config check`", ""),
        ({"data_dir": Path("a")}, {}, "a runstream of events, /bin/runstream run get", ""),
        ({"data_dir": Path("a")}, {}, "`runstream --data-dir a run list`", ""),
        ({"data_dir": Path("a")}, {"RUNSTREAM_DATA_DIR": "a"}, "`runstream run list`", ""),
        (
            {"data_dir": Path("a")},
            {"RUNSTREAM_DATA_DIR": "a", "RUNSTREAM_URL": "http://x"},
            "`runstream run list`, `runstream fsck`",
            "`runstream --data-dir a run list`, `runstream fsck`",
        ),
        ({"url": "http://x"}, {}, "`runstream status`", "`runstream --url http://x status`"),
        ({"url": "http://x"}, {}, "`runstream serve`, `runstream fsck`", ""),
        ({"url": "http://x"}, {"RUNSTREAM_URL": "http://x"}, "`runstream status`", ""),
        (
            {"url": "http://x", "data_dir": Path("a")},
            {},
            "`runstream run list`, `runstream fsck`",
            "`runstream --url http://x run list`, `runstream --data-dir a fsck`",
        ),
    ],
)
def test_a_command_in_a_text_has_the_options_that_it_needs(
    options: dict[str, Any],
    environment: dict[str, str],
    text: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RUNSTREAM_URL", "RUNSTREAM_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["runstream"])
    monkeypatch.setattr("runstream.cli.connection.program", lambda: "runstream")
    set_global_options(GlobalOptions(**options))
    try:
        assert with_program(text) == (shown or text)
    finally:
        set_global_options(GlobalOptions())


def test_a_program_is_named_as_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed, clone = tmp_path / "bin", tmp_path / "a clone"
    for folder in (installed, clone):
        folder.mkdir()
        (folder / "runstream").touch(mode=0o755)
    called = str(clone / "runstream")
    monkeypatch.setattr("sys.argv", [called])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_command() == f"'{called}'"
    monkeypatch.setenv("PATH", str(installed))
    assert program_command() == f"'{called}'"
    assert _hint_of("run", "list", "--limt") == f"`'{called}' run list --help` shows how it is used"
    assert _hint_of("run", "lsit") == f"did you mean `'{called}' run list`?"
    monkeypatch.setenv("PATH", str(clone))
    assert _hint_of("run", "list", "--limt") == "`runstream run list --help` shows how it is used"
    assert program_command() == "runstream"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [str(tmp_path / "runstream" / "__main__.py")])
    assert program_command() == with_program("runstream run").removesuffix(" run") == f"{sys.executable} -m runstream"
    assert with_program(f"`{program_command()} run list`") == f"`{program_command()} run list`"


def test_every_command_is_known_with_what_it_needs() -> None:
    assert {name.split()[0] for name in EXAMPLES} == COMMANDS


def test_the_local_service_is_found_by_its_folder(command: Command, served: Service, tmp_path: Path) -> None:
    folder = _local(tmp_path / "data", served.url)
    assert command("--data-dir", str(folder), "run", "list").code == 0


def test_no_service(command: Command, tmp_path: Path) -> None:
    done = command("--data-dir", str(tmp_path / "data"), "run", "list")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[0] == f"error: no service is running in {tmp_path / 'data'}"
    assert f"`runstream --data-dir {tmp_path / 'data'} serve`" in done.err


def test_a_service_that_was_killed(command: Command, tmp_path: Path) -> None:
    folder = _local(tmp_path / "data", "http://127.0.0.1:9")
    done = command("--data-dir", str(folder), "run", "list")
    assert done.code == 1
    assert done.err.splitlines() == [
        "error: cannot reach the service at http://127.0.0.1:9",
        f"hint: the service of {folder} (process 4711) is not there any more: "
        f"start it again with `runstream --data-dir {folder} serve`",
    ]


def test_a_broken_file_and_an_invalid_url(command: Command, tmp_path: Path) -> None:
    (tmp_path / "service.json").write_text("{")
    assert "cannot be read" in command("--data-dir", str(tmp_path), "run", "list").err
    done = command("--url", "ci.example.com", "run", "list")
    assert done.err.startswith("error: 'ci.example.com' is not the URL of a service\nhint: ")


def test_a_wrong_token(command: Command, served: Service) -> None:
    done = command("--url", served.url, "--token", "wrong", "run", "list")
    assert (done.code, done.err.splitlines()[0]) == (1, "error: the token is not valid")


def test_the_chain_is_shown_when_asked_for(command: Command, served: Service) -> None:
    arguments = ("--url", served.url, "--token", TOKEN, "run", "get", "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11")
    plain, detailed = command(*arguments), command("--detailed-errors", *arguments)
    assert len(plain.err.splitlines()) == 2
    assert "(ClientError) runstream/client/session.py:" in detailed.err
    assert "at the service: (NotExistError) runstream/log/runs.py:" in detailed.err
    assert "Traceback" not in detailed.err


def test_a_url_of_another_service(command: Command, served: Service) -> None:
    done = command("--url", f"{served.url}/elsewhere", "--token", TOKEN, "run", "list")
    assert done.code == 1
    assert len(done.err.splitlines()) == 2


def _hint_of(*words: str) -> str:
    with pytest.raises(CycloptsError) as raised:
        app.parse_args(words, print_error=False, exit_on_error=False)
    return usage_error(raised.value)[1]


def test_the_reason_of_a_wait_says_once_that_it_waits(capsys: pytest.CaptureFixture[str]) -> None:
    show = waiting_printer()
    show("waiting for postgres: connection refused")
    show("the run was not created: the disk of NATS is full (/data/nats, 0 MB left)")
    assert capsys.readouterr().err.splitlines() == [
        "waiting for postgres: connection refused",
        "waiting: the run was not created: the disk of NATS is full (/data/nats, 0 MB left)",
    ]
