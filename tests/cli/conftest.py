"""The command line, in this process, against a service in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runstream.cli.connection import GlobalOptions, set_global_options
from runstream.service.main import command_line
from tests.cli.service import Service, service
from tests.gateway.world import TOKEN


@dataclass(frozen=True)
class Outcome:
    """A command's output and exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def served() -> Iterator[Service]:
    with service() as running:
        yield running


@pytest.fixture(autouse=True)
def no_global_options() -> None:
    """Forget the options that an earlier test gave before its command."""
    set_global_options(GlobalOptions())


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run a command for which no service is configured."""
    for name in ("RUNSTREAM_URL", "RUNSTREAM_TOKEN", "RUNSTREAM_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        try:
            code: object = command_line(arguments)
        except SystemExit as end:
            code = end.code
        said = capfdbinary.readouterr()
        return Outcome(int(str(code or 0)), said.out.decode(), said.err.decode())

    return run


@pytest.fixture
def runstream(command: Command, served: Service) -> Command:
    """Run a command against the service."""
    return lambda *arguments: command("--url", served.url, "--token", TOKEN, *arguments)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    """Write a configuration file with one run of these tasks; return its path."""

    def write(*tasks: str, extra: str = "") -> str:
        path = tmp_path / "config.yml"
        listed = "".join(
            f"      - name: {task}\n        runtime: {{type: host}}\n{extra}"
            "        steps: [{run: {name: do, command: 'true'}}]\n"
            for task in tasks
        )
        path.write_text(f"runs:\n  - name: main\n    tasks:\n{listed}")
        return str(path)

    return write
