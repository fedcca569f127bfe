"""`runstream login` and `logout`: where the token is kept, and which service a command then talks to."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runstream.cli.connection import GlobalOptions, find_service
from runstream.cli.logins import KeptLogin, KeptLogins, keep_logins, kept_logins, logins_path
from runstream.errors import BadRequestError
from tests.cli.config_service import config_service
from tests.cli.conftest import Command
from tests.cli.terminal import on_terminal
from tests.gateway.world import TOKEN

Typed = Callable[[str], None]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with config_service() as at:
        yield at


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Give commands a text on stdin."""

    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return give


def test_later_commands_need_neither_url_nor_token(command: Command, stdin: Typed, url: str) -> None:
    stdin(f"{TOKEN}\n")
    done = command("login", f"{url}/")
    path = logins_path(os.environ)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"logged in to {url} as administrator; the token is kept in {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert command("user", "create", "-n", "lena").code == 0
    stdin(command("user", "token", "create", "-n", "lena", "-t", "laptop").out)
    assert f"logged in to {url} as user lena;" in command("login", url).out
    assert command("user", "create", "-n", "other").code == 1
    assert command("--token", TOKEN, "user", "create", "-n", "other").code == 0
    assert command("logout").out == f"logged out of {url}; `runstream user token delete` ends the token itself\n"
    assert "no service is running" in command("org", "list").err
    again = command("logout")
    assert (again.code, again.err.splitlines()[0]) == (1, "error: you are not logged in")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("", "there is no token"), ("two words\n", "not a token"), ("rst_wrong\n", "token"), ("\x1b[A\n", "not a token")],
)
def test_a_token_that_is_not_valid_is_not_kept(
    command: Command, stdin: Typed, url: str, typed: str, expected: str
) -> None:
    stdin(typed)
    done = command("login", url)
    assert done.code == 1
    assert expected in done.err
    assert "rst_wrong" not in done.err
    assert not logins_path(os.environ).exists()


async def test_a_terminal_does_not_show_the_token(command: Command, url: str, tmp_path: Path) -> None:
    kept = tmp_path / "terminal"
    environment = os.environ | {"TERM": "xterm", "XDG_CONFIG_HOME": str(kept)}
    async with on_terminal(environment, "login", url) as terminal:
        await terminal.shows(f"Token for {url}: ")
        terminal.type(f"{TOKEN}\n")
        assert await terminal.ended() == 0
        assert TOKEN not in terminal.written
    assert kept_logins({"XDG_CONFIG_HOME": str(kept)}).token_of(url) == TOKEN


def test_what_is_named_goes_before_a_login_and_a_token_is_sent_to_its_own_service(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "share")}
    logins = (
        KeptLogins()
        .with_login("https://A.example.com/", KeptLogin("a"))
        .with_login("https://b.example.com", KeptLogin("b"))
    )
    keep_logins(environ, logins)

    def found(options: GlobalOptions, **more: str) -> tuple[str, str]:
        service = find_service(options, environ | more)
        return service.url, service.token

    assert found(GlobalOptions()) == ("https://b.example.com", "b")
    assert found(GlobalOptions(url="https://a.example.com")) == ("https://a.example.com", "a")
    assert found(GlobalOptions(url="https://a.example.com", token="mine")) == ("https://a.example.com", "mine")
    assert found(GlobalOptions(url="http://a.example.com")) == ("http://a.example.com", "")
    assert found(GlobalOptions(), RUNSTREAM_URL="https://c.example.com") == ("https://c.example.com", "")
    assert found(GlobalOptions(), RUNSTREAM_TOKEN="theirs") == ("https://b.example.com", "theirs")
    local = tmp_path / "local"
    local.mkdir()
    (local / "service.json").write_text('{"url": "http://127.0.0.1:1", "token": "local"}')
    assert found(GlobalOptions(data_dir=local)) == ("http://127.0.0.1:1", "local")
    assert found(GlobalOptions(), RUNSTREAM_DATA_DIR=str(local)) == ("http://127.0.0.1:1", "local")


def test_logins_that_others_can_read_or_that_are_broken_are_refused(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    path = keep_logins(environ, KeptLogins("https://a", {"https://a": KeptLogin("secret")}))
    path.chmod(0o640)
    with pytest.raises(BadRequestError, match="others can read"):
        kept_logins(environ)
    path.chmod(0o600)
    path.write_text("{")
    with pytest.raises(BadRequestError, match="cannot be read"):
        kept_logins(environ)
