"""A first configuration, written from what is in the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from runstream.cli.init_command import init
from runstream.errors import ConflictError
from runstream.evaluation.files import candidates
from runstream.runconfig.parse import notices, parse_config
from runstream.runconfig.steps import CloneStep


@pytest.mark.parametrize(
    ("files", "tasks"),
    [
        ((), ["hello"]),
        (("pyproject.toml",), ["python"]),
        (("package.json", "package-lock.json", "go.mod"), ["node", "go"]),
        (("Cargo.toml", "pom.xml", "gradlew"), ["rust", "maven", "gradle"]),
        (("Makefile", "pyproject.toml"), ["check"]),
    ],
)
@pytest.mark.parametrize("repository", [True, False])
def test_it_fits_what_is_there_and_is_valid(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: tuple[str, ...],
    tasks: list[str],
    repository: bool,
) -> None:
    for name in files:
        (tmp_path / name).write_text("all:\n\techo\ncheck: all\n\techo\n" if name == "Makefile" else "")
    below = tmp_path
    if repository:
        (tmp_path / ".git").mkdir()
        below = tmp_path / "sub"
        below.mkdir()
    monkeypatch.chdir(below)
    init()
    parsed = parse_config((tmp_path / ".runstream" / "config.yml").read_bytes())
    assert (parsed.warnings, notices(parsed)) == ((), [])
    assert [task.name for task in parsed.runs[0].tasks] == tasks
    for task in parsed.runs[0].tasks:
        assert task.runtime.type == "host"
        assert isinstance(task.steps[0], CloneStep) == repository
    assert "runstream run create --follow" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(candidates()))
def test_it_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConflictError, match="already exists"):
        init()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [Path(name).name]
    assert (tmp_path / name).read_text() == "mine"
