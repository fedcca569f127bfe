"""What `serve` and `executor list` say of executors without a sandbox, and of clocks that are wrong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from runstream.cli.executor_commands import accepted_kinds, executor_notes
from runstream.client import Executor
from runstream.service.serve_commands import report_ready
from runstream.service.wiring import Parts
from runstream.settings import Settings

EXECUTOR = Executor(
    executor_id="e1",
    state="registered",
    archs=("amd64",),
    labels={},
    allow_privileged_containers=False,
    allow_host=True,
    allow_pod=False,
    active_tasks_limit=2,
    active_tasks=0,
    version="0.2.0",
    sandbox="sandboxed",
)


@pytest.mark.parametrize(("lack", "told"), [("", False), ("off", True), ("missing: no user namespaces", True)])
def test_serve_warns_of_tasks_without_a_sandbox(capsys: pytest.CaptureFixture[str], lack: str, told: bool) -> None:
    web = cast("Any", SimpleNamespace(url="http://127.0.0.1:1"))
    executors = cast("Any", [SimpleNamespace(sandbox_problem=lack)])
    report_ready(Settings(data_dir=Path("/nowhere")), Parts([], web, gateway=True, executors=executors))
    said = capsys.readouterr().out
    assert (f"WITHOUT a sandbox ({lack})" in said) is told


def test_serve_and_the_list_say_that_tasks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    web = cast("Any", SimpleNamespace(url="http://127.0.0.1:1"))
    executors = cast("Any", [SimpleNamespace(sandbox_problem="refused: no namespaces")])
    report_ready(Settings(data_dir=Path("/nowhere")), Parts([], web, gateway=True, executors=executors))
    said = capsys.readouterr().out
    assert "tasks are refused: no namespaces" in said
    assert "WITHOUT" not in said
    refusing = replace(EXECUTOR, allow_host=False, sandbox="refused: no namespaces")
    assert list(accepted_kinds(refusing)) == ["no host tasks (refused: no namespaces)"]


@pytest.mark.parametrize(("file", "first"), [("", "begin     "), (".runstream/config.yml", "try       ")])
def test_serve_proposes_to_write_a_configuration_where_there_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, first: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if file:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("runs: []")
    web = cast("Any", SimpleNamespace(url="http://127.0.0.1:1"))
    report_ready(Settings(data_dir=Path("/nowhere")), Parts([], web, gateway=True, executors=[]))
    line = capsys.readouterr().out.splitlines()[2]
    assert line.startswith(f"  {first}")
    assert line.endswith("run create --follow" if file else "init")


def test_a_list_of_executors_names_those_without_a_sandbox() -> None:
    assert list(accepted_kinds(EXECUTOR)) == ["host"]
    assert list(accepted_kinds(replace(EXECUTOR, sandbox="missing: no user namespaces"))) == ["host WITHOUT a sandbox"]
    assert list(accepted_kinds(replace(EXECUTOR, sandbox=""))) == ["host"]


@pytest.mark.parametrize(
    ("skew", "said"),
    [(-90.0, ["its clock is 90 s behind"]), (3600.0, ["its clock is 3600 s ahead of"]), (2.0, []), (0.0, [])],
)
def test_a_list_of_executors_names_clocks_that_are_wrong(skew: float, said: list[str]) -> None:
    notes = list(executor_notes(replace(EXECUTOR, clock_skew=skew)))
    assert len(notes) == len(said)
    assert all(note.startswith(start) for note, start in zip(notes, said, strict=True))
