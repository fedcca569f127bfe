"""What each command prints, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import AsyncMock

import pytest
from msgspec.structs import replace

from runstream.api import Reason, Why
from runstream.cli.commands import EXAMPLES
from runstream.cli.executor_commands import find_executor
from runstream.cli.watching import print_created
from runstream.client import Client, ClientError, Commit, Event, Run
from runstream.client.runs import Runs
from runstream.errors import BadRequestError, NotExistError
from runstream.release import version
from runstream.service.main import app
from tests.cli.conftest import Command
from tests.cli.service import Service
from tests.cli.test_graph import AT, RUN
from tests.docs.cli_reference import all_commands

Config = Callable[..., str]
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _without_ids(text: str) -> str:
    text = re.sub(r"#\d+", "#N", re.sub(r"/user/admin/\d+", "NAME", text))
    return ID.sub("ID", re.sub(r"http://127.0.0.1:\d+", "URL", text))


def _create(runstream: Command, path: str, *options: str) -> str:
    done = runstream("run", "create", "--config", path, "--output", "json", *options)
    assert done.code == 0, done.err
    return str(json.loads(done.out)[0]["id"])


def test_create_says_what_to_type_next(runstream: Command, config: Config) -> None:
    done = runstream("run", "create", "--config", config("build"))
    assert (done.code, done.err) == (0, "")
    assert _without_ids(done.out).splitlines() == [
        "run main #N is finished  NAME",
        "  look    runstream --url URL run get NAME",
        "  follow  runstream --url URL run follow NAME",
    ]


def test_follow_prints_logs_and_the_end(runstream: Command, config: Config) -> None:
    done = runstream("run", "create", "--config", config("build"), "--follow")
    assert done.code == 0
    lines = _without_ids(done.out).splitlines()
    assert "build | first line" in lines
    assert "build | second line" in lines
    end = next(index for index, line in enumerate(lines) if line.startswith("build: success"))
    assert lines.index("build | second line") < end
    assert [line for line in lines if line.startswith("run main #N: success")] == [lines[-3]]
    assert lines[-3].startswith("run main #N: success")
    assert lines[-2:] == [
        "  look    runstream --url URL run get NAME",
        "  log     runstream --url URL log get NAME build",
    ]


def test_follow_of_a_failure_names_the_step_and_ends_with_1(runstream: Command, config: Config) -> None:
    done = runstream("run", "create", "--config", config("build", "bad"), "--follow")
    assert done.code == 1
    text = _without_ids(done.out)
    assert "\nbad: failed after 0 ms (step 1 of 1: do, exit status 3)" in text
    assert (
        "  bad failed: step 1 of 1: do, exit status 3\n    log   runstream --url URL log get NAME bad --step 0" in text
    )


def test_follow_of_what_is_stopped_ends_with_3(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("slow"))
    stopped = runstream("run", "stop", run)
    assert (stopped.code, _without_ids(stopped.out)) == (0, "stopping run NAME\n")
    done = runstream("run", "follow", run)
    assert (done.code, "run main #N: stopped" in _without_ids(done.out)) == (3, True)


def test_follow_of_a_setup_error_ends_with_1(
    runstream: Command, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.gateway.runs.prepare.run_configs", _broken)
    done = runstream("run", "create", "--config", config("build"), "--follow")
    assert done.code == 1
    assert "this was broken on purpose" in done.err


def test_a_file_that_is_no_configuration_makes_an_error_or_a_run(runstream: Command, tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("runs:\n- name: r\n  task: []\n")
    refused = runstream("run", "create", "--config", str(file))
    assert (refused.code, refused.out) == (1, "")
    made = runstream("run", "create", "--config", str(file), "--on-setup-error", "run")
    assert made.code == 1
    assert made.out.splitlines()[0].startswith("run Setup Error is setup error")
    assert f"setup error: {file}: line 3, runs[0].task: unknown field" in made.out
    followed = runstream("run", "create", "--config", str(file), "--on-setup-error", "run", "--follow")
    assert followed.code == 1
    assert "unknown field" in followed.out


def test_warnings_of_a_configuration_are_no_results(runstream: Command, tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("runs:\n- name: r\n  colour: red\n")
    done = runstream("run", "create", "--config", str(file), "--output", "json")
    assert (done.code, len(json.loads(done.out))) == (0, 1)
    assert done.err.startswith('warning: line 3, runs[0].colour: unknown field "colour" is ignored (known: name,')


def test_strict_creates_nothing_where_there_is_a_warning(runstream: Command, tmp_path: Path) -> None:
    file = tmp_path / "strict.yml"
    file.write_text("runs:\n- name: strict\n  colour: red\n")
    refused = runstream("run", "create", "--config", str(file), "--strict")
    assert (refused.code, refused.out) == (1, "")
    assert f'{file} is not valid: line 3, runs[0].colour: unknown field "colour" (known: name,' in refused.err
    file.write_text("runs:\n- name: strict\n")
    _commit(tmp_path)
    assert runstream("run", "create", "--config", str(file), "--strict").code == 0
    file.write_text("runs:\n- name: changed\n")
    (tmp_path / "app.py").write_text("new")
    warned = runstream("run", "create", "--config", str(file)).err.splitlines()
    assert warned == [
        "warning: app.py has changes that are not committed: they are not in this run",
        "warning: strict.yml has changes that are not committed: the run uses the file as it is here",
    ]
    refused = runstream("run", "create", "--config", str(file), "--strict")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.splitlines()[1:3] == [
        "  app.py has changes that are not committed",
        "  strict.yml has changes that are not committed",
    ]
    (tmp_path / "app.py").unlink()
    file.write_text("runs:\n- name: changed\n  colour: red\n")
    refused = runstream("run", "create", "--config", str(file), "--strict")
    first, dirty, unknown = refused.err.splitlines()[:3]
    assert first == f"error: {file} is not valid:"
    assert dirty == "  strict.yml has changes that are not committed"
    assert unknown.startswith('  line 3, runs[0].colour: unknown field "colour" (known: name,')
    assert runstream("run", "list", "--name", "changed", "--output", "json").out.count('"name"') == 1


def _broken(*_: object, **__: object) -> list[object]:
    from runstream.errors import InternalError

    raise InternalError("this was broken on purpose")


def test_get_list_and_by_number(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("bad"))
    assert runstream("run", "follow", run).code == 1
    shown = runstream("run", "get", run)
    assert shown.code == 0
    assert "run main #N  failed" in _without_ids(shown.out)
    assert re.search(r"✗ bad +failed +0 ms +step 1 of 1: do, exit status 3", shown.out)
    assert json.loads(runstream("run", "get", run, "-o", "json").out)["result"] == "failed"
    name = re.findall(r"^run +(/user/admin/\d+)$", shown.out, re.MULTILINE)[0]
    assert json.loads(runstream("run", "get", run[:13], "-o", "json").out)["id"] == run
    for by in (name, name.replace("admin/", "admin/direct/")):
        assert f"\nrun                   {name}\n" in runstream("run", "get", by).out
    latest = json.loads(runstream("run", "list", "--limit", "1", "-o", "json").out)["runs"][0]["id"]
    for by in ("latest", "@"):
        assert json.loads(runstream("run", "get", by, "-o", "json").out)["id"] == latest
    missing = runstream("run", "get", "/user/admin/4711")
    assert missing.err.splitlines()[0] == "error: /user/admin has no run 4711"
    hint = missing.err.splitlines()[1]
    assert re.match(r"hint: its latest runs are (/user/admin/\d+(, )?)+$", hint)
    listed = runstream("run", "list", "--limit", "40")
    assert any(run in line and "failed" in line for line in listed.out.splitlines())
    assert any(one["id"] == run for one in json.loads(runstream("run", "list", "-o", "json").out)["runs"])


def test_the_latest_run_of_a_group_has_a_name_wherever_a_run_is_named(runstream: Command, config: Config) -> None:
    created = [
        _create(runstream, config("build"), "--group", f"/project/latest-{branch}")
        for branch in ("a/branch/b", "a/x", "b")
    ]
    assert runstream("run", "follow", created[0]).code == 0
    for name, run in zip(("a/branch/b/latest", "a/latest", "b/@"), created, strict=True):
        assert json.loads(runstream("run", "get", f"/project/latest-{name}", "-o", "json").out)["id"] == run
    first = "/project/latest-a/branch/b/latest"
    commands: list[tuple[str, ...]] = [
        ("run", "follow", first),
        ("run", "why", first),
        ("log", "get", first),
        ("run", "annotate", first, "build", "by=hand"),
        ("run", "restart", first, "--all"),
        ("run", "delete", "/project/latest-a/branch/b/latest", "--yes"),
    ]
    for words in commands:
        assert "does not name a run" not in runstream(*words).err
    missing = runstream("run", "get", "/project/latest-c/latest")
    assert (missing.code, missing.err.splitlines()[0]) == (1, "error: /project/latest-c has no runs")
    invalid = runstream("run", "get", "/nothing/latest")
    assert (invalid.code, "Traceback" in invalid.err) == (1, False)
    assert invalid.err.startswith("error: ")


async def test_a_created_run_has_its_number_while_the_projection_is_behind(capfd: pytest.CaptureFixture[str]) -> None:
    """The number is in the log; what the database knows of the run comes later."""

    class Events:
        async def tail(self, *, run: str) -> AsyncGenerator[Commit, None]:
            for events in ((Event("RunCreated", {}),), (Event("RunNumbered", {"counter": 7}), Event("RunStarted", {}))):
                yield Commit("c", f"run/{run}", 1, AT, "user", "", events, "1/0/3", "1:3")

    class Behind:
        async def get(self, run: str, *, at_least: str) -> Run:
            raise ClientError("the database is behind", kind="unavailable", code="projectionBehind", status=503)

    client = cast("Client", SimpleNamespace(events=Events(), runs=Behind()))
    await print_created(client, [replace(RUN, group="/project/web/adhoc", counter=0)])
    shown = capfd.readouterr().out.splitlines()
    assert shown[0].endswith("  /project/web/7")
    assert shown[1].endswith("run get /project/web/7")


def test_why_a_run_has_failed_is_said_for_each_task(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("bad"))
    assert runstream("run", "follow", run).code == 1
    assert runstream("run", "why", run).out.splitlines()[-1] == "bad failed: step 1 of 1: do, exit status 3"


def test_a_number_alone_is_of_the_project_around(runstream: Command, config: Config, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    path = Path(config("build")).rename(tmp_path / "own" / "config.yml")
    _commit(tmp_path / "own")
    run = _create(runstream, str(path))
    refused = runstream("run", "get", "1")
    assert "a number alone needs a clone of the project's repository around you" in refused.err
    os.chdir(tmp_path / "own")
    found = json.loads(runstream("run", "get", "1", "-o", "json").out)
    assert (found["id"], found["group"]) == (run, "/project/own/branch/main")


def test_approve(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("deploy", extra="        approval: true\n"))
    done = runstream("run", "approve", run, "deploy")
    assert (done.code, _without_ids(done.out)) == (0, "task deploy of run NAME is approved\n")
    assert runstream("run", "follow", run).code == 0
    again = runstream("run", "approve", run, "deploy")
    assert (again.code, again.err.splitlines()[0]) == (1, "error: task 'deploy' is approved already")


def test_annotate(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("deploy", extra="        approval: true\n"))

    def noted() -> dict[str, str]:
        tasks = json.loads(runstream("run", "get", run, "-o", "json").out)["tasks"].values()
        (task,) = [task for task in tasks if task["name"] == "deploy"]
        return dict(task["annotations"])

    done = runstream("run", "annotate", run, "deploy", "ticket=OPS-1", "owner=ann")
    assert (done.code, _without_ids(done.out)) == (0, "notes of task deploy of run NAME: owner, ticket\n")
    assert noted() == {"ticket": "OPS-1", "owner": "ann"}
    runstream("run", "approve", run, "deploy")
    assert runstream("run", "annotate", run, "deploy", "owner=bob", "--remove", "ticket").code == 0
    assert {name: value for name, value in noted().items() if name != "approvers"} == {"owner": "bob"}
    done = runstream("run", "annotate", run, "deploy", "--replace", "a=b=c")
    assert _without_ids(done.out) == "notes of task deploy of run NAME: a\n"
    assert noted()["a"] == "b=c"
    done = runstream("run", "annotate", run, "deploy")
    assert (done.code, done.err.splitlines()[0]) == (1, "error: no note was given")


def test_a_list_says_how_to_go_on(runstream: Command, config: Config) -> None:
    waiting = [_create(runstream, config("deploy", extra="        approval: true\n")) for _ in range(3)]
    active = ("run", "list", "--phase", "running", "--phase", "queued")

    def everything() -> dict[str, str]:
        return {one["id"]: one["phase"] for one in json.loads(runstream(*active, "-o", "json").out)["runs"]}

    while {everything()[run] for run in waiting} != {"running"}:
        pass
    told = runstream(*active, "--limit", "1").out.splitlines()[-1]
    words = told.removeprefix("there are more: runstream ").split()
    assert words[:1] == ["--url"]
    cursor = words[words.index("--cursor") + 1]
    second = json.loads(runstream(*words[2:], "-o", "json").out)
    assert [one["id"] for one in second["runs"]] == list(everything())[1:2]
    assert second["cursor"] not in {"", cursor}
    done = runstream("run", "list", "--cursor", cursor, "--phase", "queued")
    assert (done.code, done.err.splitlines()[0]) == (1, "error: --cursor cannot be combined with other filters")


def test_lists_are_of_what_is_chosen(runstream: Command, config: Config) -> None:
    path = config("deploy", extra="        approval: true\n")
    group = ("--group", "/project/shop/branch/a%2Fb")
    waiting = json.loads(runstream("run", "create", "--config", path, *group, "-o", "json").out)[0]["id"]
    _create(runstream, config("build"))

    def listed(*choice: str) -> list[str]:
        return [run["id"] for run in json.loads(runstream("run", "list", *choice, "-o", "json").out)["runs"]]

    while waiting not in listed("--waiting-approval", "--name", "main", "--project", "shop"):
        pass
    for choice in ("--project shop", "--project shop --branch a/b", "--project /project/shop --waiting-approval"):
        assert listed(*choice.split()) == [waiting]
    for choice in ("--project sho", "--project shop --branch a", "--name mai", "--project user --waiting-approval"):
        assert runstream("run", "list", *choice.split()).out == "no run matches\n"


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("--group nope", "run group 'nope' is not valid"),
        ("--branch main", "--branch needs --project outside of a repository"),
        ("--project a --group /project/a", "give either --group or --project and --branch"),
        ("--project a//b", "run group '/project/a//b' is not valid"),
    ],
)
def test_an_invalid_selection_of_runs_is_an_error(runstream: Command, choice: str, says: str) -> None:
    done = runstream("run", "list", *choice.split())
    assert (done.code, done.out, done.err.splitlines()[0]) == (1, "", f"error: {says}")


def test_a_command_in_the_reason_of_a_wait_can_be_pasted(
    runstream: Command, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _create(runstream, config("slow"))
    parked = Reason("parked", "a commit is parked: see `runstream run list`", (), {})
    found = Why(run, "running", "unknown", (parked,))
    monkeypatch.setattr(Runs, "why", AsyncMock(return_value=found))
    assert "see `runstream --url URL run list`" in _without_ids(runstream("run", "why", run).out)
    assert runstream("run", "stop", run).code == 0


def test_pause_why_and_resume(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("slow"))
    while json.loads(runstream("run", "get", run, "-o", "json").out)["phase"] != "running":
        pass
    asked = runstream("run", "why", run)
    assert asked.code == 0
    assert _without_ids(asked.out).startswith("run NAME is ")
    assert re.search(r"noScheduler +- +no scheduler works on partition \d", asked.out)
    told = json.loads(runstream("run", "why", run, "--output", "json").out)
    assert (told["run"], [reason["code"] for reason in told["reasons"]]) == (run, ["noScheduler"])
    paused = runstream("run", "pause", run)
    assert (paused.code, "is paused" in paused.out) == (0, True)
    assert "running, paused" in runstream("run", "get", run).out
    assert "running, paused" in runstream("run", "list").out
    assert _without_ids(runstream("run", "resume", run).out) == "run NAME is resumed\n"
    again = runstream("run", "resume", run)
    assert (again.code, again.err.splitlines()[0]) == (1, "error: the run is running and cannot be resumed")
    assert runstream("run", "stop", run).code == 0


def test_names_of_runs_can_be_pasted(runstream: Command, config: Config) -> None:
    """An id is printed under its own label: the ID column of lists, the `id` line of `run get`."""
    ended = _create(runstream, config("build"))
    runstream("run", "follow", ended)
    waiting = _create(runstream, config("deploy", extra="        approval: true\n"))
    slow = _create(runstream, config("slow"))
    said = [
        runstream(*words)
        for words in (
            ("run", "get", ended),
            ("run", "follow", ended),
            ("run", "why", ended),
            ("run", "restart", ended),
            ("run", "get", "latest"),
            ("run", "stop", ended),
            ("run", "cancel", ended),
            ("run", "pause", ended),
            ("run", "approve", ended, "build"),
            ("run", "restart", ended, "--task", "nope"),
            ("log", "get", ended, "nope"),
            ("log", "get", waiting, "deploy"),
            ("run", "why", waiting),
            ("run", "annotate", waiting, "deploy", "a=b"),
            ("run", "approve", waiting, "deploy"),
            ("run", "pause", slow),
            ("run", "why", slow),
            ("run", "resume", slow),
            ("run", "stop", slow),
        )
    ]
    lines = [line for done in said for line in (done.out + done.err).splitlines()]
    assert [line for line in lines if ID.search(line) and not line.startswith("id ")] == []


def test_the_log_of_a_task_that_never_ran_does_not_exist(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("skip"))
    runstream("run", "follow", run)
    done = runstream("log", "get", run, "skip")
    assert (done.code, _without_ids(done.err).splitlines()[0]) == (
        1,
        "error: log doesn't exist: task 'skip' of NAME was skipped",
    )
    assert _without_ids(done.err).splitlines()[1].startswith("hint: `runstream --url URL run get NAME` shows")


def test_logs(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("build"))
    for arguments in ((), ("--step", "0"), ("--setup",), ("--follow",)):
        done = runstream("log", "get", run, "build", *arguments)
        assert (done.code, done.out) == (0, "first line\nsecond line\n")


def test_a_log_is_written_to_a_file_that_exists_once_it_is_whole(
    runstream: Command, config: Config, tmp_path: Path, served: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _create(runstream, config("build"))
    file = tmp_path / "build.log"
    for option in ("--output", "-o"):
        file.unlink(missing_ok=True)
        done = runstream("log", "get", run, "build", option, str(file))
        assert (done.code, done.out, done.err) == (0, "", "")
        assert file.read_text() == "first line\nsecond line\n"
    assert runstream("log", "get", run, "build", "--output", "-").out == "first line\nsecond line\n"
    assert runstream("log", "get", run, "build", "--output", "/dev/null").out == ""
    there = sorted(tmp_path.iterdir())
    refused = runstream("log", "get", run, "build", "--output", str(tmp_path / "none" / "x"))
    assert (refused.code, "cannot write" in refused.err, "No such file" in refused.err) == (1, True, True)
    refused = runstream("log", "get", run, "build", "--follow", "--output", str(tmp_path / "x"))
    assert (refused.code, "give either --follow or --output" in refused.err) == (1, True)
    monkeypatch.setattr(served.world.step_logs, "error", NotExistError("no log", code="logDoesNotExist"))
    assert runstream("log", "get", run, "build", "--output", str(file)).code == 1
    assert file.read_text() == "first line\nsecond line\n"
    assert sorted(tmp_path.iterdir()) == there


def test_log_with_timestamps(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("build"))
    lines = ["1970-01-01T00:00:00.000Z first line\n", "1970-01-01T00:00:11.000Z second line\n"]
    for arguments, shown in (((), lines), (("--follow",), lines), (("--tail", "1"), lines[1:])):
        done = runstream("log", "get", run, "build", "--timestamps", *arguments)
        assert (done.code, done.out, done.err) == (0, "".join(shown), "")


def test_lines_without_a_known_time_are_explained(
    runstream: Command, config: Config, served: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _create(runstream, config("build"))
    monkeypatch.setattr(served.world.step_logs, "has_times", False)
    for arguments in ((), ("--follow",), ("--tail", "2")):
        done = runstream("log", "get", run, "build", "--timestamps", *arguments)
        assert (done.code, done.out) == (0, "- first line\n- second line\n")
        assert done.err.startswith("note: the time of lines that begin with - is unknown")
    assert runstream("log", "get", run, "build").err == ""


def test_logs_of_a_run_name_the_task_of_each_line(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("build", "bad"))
    assert runstream("run", "follow", run).code == 1
    everything = "".join(f"{task} | {line} line\n" for task in ("bad", "build") for line in ("first", "second"))
    assert runstream("log", "get", run).out == everything
    assert runstream("log", "get", run, "--tail", "1").out == "bad | second line\nbuild | second line\n"
    for choice in ("--failed", "bad --failed", "bad --step do", "bad --setup"):
        assert runstream("log", "get", run, *choice.split()).out == "first line\nsecond line\n"
    for choice in ("--failed --tail 1", "bad --tail 1 --follow", "bad --tail 1"):
        assert runstream("log", "get", run, *choice.split()).out == "second line\n"


def test_a_failed_run_shows_the_last_lines_of_what_failed(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("build", "bad"))
    assert runstream("run", "follow", run).code == 1
    assert _without_ids(runstream("run", "get", run).out).endswith(
        "\nlast lines of bad, step 0:\n  first line\n  second line\n"
        "log: runstream --url URL log get NAME bad --step 0\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nope",), "error: log doesn't exist: NAME has no task 'nope'\nhint: its tasks are: build\n"),
        (
            ("biuld",),
            "error: log doesn't exist: NAME has no task 'biuld'\nhint: did you mean 'build'? its tasks are: build\n",
        ),
        (
            ("build", "--step", "7"),
            "error: log doesn't exist: task 'build' of NAME has no step '7'\nhint: its steps are: 0 do\n",
        ),
        (
            ("--step", "doo"),
            "error: log doesn't exist: task 'build' of NAME has no step 'doo'\nhint: did you mean 'do'? its steps are",
        ),
        (("build", "--step", "0", "--setup"), "error: give either --setup or --step\n"),
        (("--attempt", "1"), "error: --attempt needs a task\n"),
        (("--follow",), "error: --follow needs a task\nhint: `runstream --url URL run follow` follows all"),
        (("--failed",), "error: no step of task 'build' of NAME failed\n"),
    ],
)
def test_logs_that_are_not_there(runstream: Command, config: Config, arguments: tuple[str, ...], says: str) -> None:
    done = runstream("log", "get", _create(runstream, config("build")), *arguments)
    assert (done.code, done.out) == (1, "")
    assert _without_ids(done.err).startswith(says)


async def test_an_executor_is_named_by_the_beginning_of_its_id() -> None:
    ids = ["6fd7960a", "6fd7aaaa", "0b9f7f6e"]
    executors = SimpleNamespace(list=AsyncMock(return_value=[SimpleNamespace(executor_id=each) for each in ids]))
    client = cast("Client", SimpleNamespace(executors=executors))
    assert [await find_executor(client, text) for text in ("0b", "6fd796", "6fd7aaaa", "none")] == [
        "0b9f7f6e",
        "6fd7960a",
        "6fd7aaaa",
        "none",
    ]
    with pytest.raises(BadRequestError, match="'6fd7' begins 2 ids of executors"):
        await find_executor(client, "6fd7")


def test_executors(runstream: Command) -> None:
    assert runstream("executor", "list").out == "there are no executors\n"
    assert json.loads(runstream("executor", "list", "-o", "json").out) == []
    done = runstream("executor", "delete", "e7")
    assert (done.code, done.err.splitlines()[0]) == (1, "error: executor e7 does not exist")


def test_every_mistake_of_a_file_is_reported_with_its_line(runstream: Command, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("runs:\n  - name: a\n    whenn: red\n    tasks: 7\n  - {}\n")
    done = runstream("run", "create", "--config", "config.yml", "--follow")
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    assert lines[0] == "error: config.yml is not valid:"
    assert sum(line.startswith("  line ") for line in lines) >= 3
    assert lines[-1].startswith("hint: ")


def test_what_a_program_made_has_no_lines(runstream: Command, tmp_path: Path) -> None:
    (tmp_path / "config.jsonnet").write_text("{ runs: [{ name: 'a', colour: 1, tasks: 7 }, {}] }")
    done = runstream("run", "create", "--config", "config.jsonnet")
    lines = done.err.splitlines()
    assert (done.code, lines[0]) == (1, "error: config.jsonnet is not valid:")
    assert lines[1].startswith("  runs[")


def test_a_wrong_file_is_named_as_it_was_given(runstream: Command, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/bad.yml").write_text("runs: [")
    assert "sub/bad.yml" in runstream("run", "create", "--config", "sub/bad.yml").err.splitlines()[0]


def test_changes_that_are_not_committed_are_warned_of(runstream: Command, config: Config, tmp_path: Path) -> None:
    path = config("build")
    _commit(tmp_path)
    assert runstream("run", "create", "--config", path).err == ""
    (tmp_path / "app.py").write_text("new")
    warned = runstream("run", "create", "--config", path)
    assert warned.code == 0
    assert warned.err == "warning: app.py has changes that are not committed: they are not in this run\n"


def _commit(folder: Path) -> None:
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=folder, check=True)


def test_the_file_is_found_in_its_folder(runstream: Command, config: Config, tmp_path: Path) -> None:
    missing = runstream("run", "create")
    assert (missing.code, missing.err.splitlines()[0]) == (1, f"error: there is no configuration file in {tmp_path}")
    (tmp_path / ".runstream").mkdir()
    Path(config("build")).rename(tmp_path / ".runstream" / "config.yml")
    assert runstream("run", "create").code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--env", "A"), "error: --env 'A' is not NAME=VALUE"),
        (("--repo", "/nowhere/at/all"), "error: there is no repository at /nowhere/at/all"),
        (("--repo=--upload-pack=x",), "error: '--upload-pack=x' begins with '-'"),
        (("--config", "other.yml"), "error: there is no configuration file other.yml"),
        (("--config", "/etc/hostname"), "error: /etc/hostname is not a configuration file: its suffix names no format"),
        (("--group", "main"), "error: run group 'main' is not valid"),
    ],
)
def test_mistyped_options_are_one_sentence(
    runstream: Command, config: Config, arguments: tuple[str, ...], says: str
) -> None:
    config("build")
    base = () if "--config" in arguments else ("--config", "config.yml")
    done = runstream("run", "create", *base, *arguments)
    assert (done.code, done.err.splitlines()[0]) == (1, says)
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        ("run lsit", "unknown command 'lsit'", "did you mean `runstream --url URL run list`?"),
        ("rerun", "unknown command 'rerun'", "did you mean `runstream --url URL run restart`?"),
        ("logs", "unknown command 'logs'", "did you mean `runstream --url URL log get`?"),
        ("cancel", "unknown command 'cancel'", "did you mean `runstream --url URL run cancel`?"),
        ("start", "unknown command 'start'", "did you mean `runstream serve`?"),
        ("stattus", "unknown command 'stattus'", "did you mean `runstream --url URL status`?"),
        ("dance", "unknown command 'dance'", "its commands are: audit, cache, completion, config, directrun, doctor,"),
        ("run create x.yml", "unexpected argument 'x.yml'", "did you mean --config x.yml?"),
        ("run list --phase flying", "invalid value", "`runstream run list --help` shows how it is used"),
        ("run list --limt 3", "unknown option: --limt. Did you mean --limit?", "`runstream run list --help`"),
        ("run list --limit 100", "invalid value", "`runstream run list --help`"),
        ("executor drain", 'command "executor drain" parameter EXECUTOR requires', "`runstream executor drain --help`"),
        ("run get", "no run is named: give RUN, or --runnumber with --project", "`runstream --help`"),
    ],
)
def test_usage_errors_end_with_2_and_a_hint(runstream: Command, words: str, says: str, hint: str) -> None:
    done = runstream(*words.split())
    first, second = done.err.splitlines()
    assert (done.code, done.out) == (2, "")
    assert first.startswith(f"error: {says}")
    assert _without_ids(second).startswith(f"hint: {hint}")
    assert "…" not in done.err
    assert "..." not in done.err


def test_help_and_version_are_words_too(runstream: Command) -> None:
    assert runstream("help", "run", "list").out == runstream("run", "list", "--help").out
    assert runstream("help").out == runstream("--help").out
    assert runstream("-V").out == runstream("--version").out == f"{version()}\n"
    assert runstream("version").out == f"client: {version()}\ngateway: {version()}\n"
    assert json.loads(runstream("version", "-o", "json").out) == {"client": version(), "gateway": version()}


@pytest.mark.parametrize("words", [("help",), ("--help",), ("help", "run", "list"), ("run", "list", "--help")])
def test_help_fits_the_terminal_of_now(
    runstream: Command, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (70, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert max(map(len, runstream(*words).out.splitlines())) == columns


def test_every_help_has_an_example_that_parses_and_no_empty_default(runstream: Command) -> None:
    commands = {name.removeprefix("runstream "): command for name, command in all_commands(app, "runstream")}
    assert set(EXAMPLES) == set(commands)
    for name, lines in EXAMPLES.items():
        shown = " ".join(runstream(*name.split(), "--help").out.split())
        assert "[default: False]" not in shown
        assert '[default: ""]' not in shown
        assert "--detailed-errors" not in shown
        for line in lines:
            assert line in shown
            command = re.sub(r'^eval "[$][(](.*)[)]"$', r"\1", line).partition(" > ")[0]
            assert command.startswith(f"runstream {name}")
            app.parse_args(shlex.split(command)[1:], print_error=False, exit_on_error=False)
    assert "--detailed-errors" in runstream("--help").out


def test_attempts_are_shown_with_their_steps_and_logs(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("flaky", extra="        retry: 2\n"))
    assert runstream("run", "follow", run).code == 0
    shown = runstream("run", "get", run).out
    assert re.search(r"✓ flaky +success +0 ms +attempt 2 of 3", shown)
    assert re.search(r"^flaky \(1\) +0 +do +failed +3", shown, re.MULTILINE)
    assert re.search(r"^flaky \(2\) +0 +do +success +0", shown, re.MULTILINE)
    (task,) = json.loads(runstream("run", "get", run, "-o", "json").out)["tasks"].values()
    assert (task["attempt"], task["max_attempts"], task["attempts"][0]["failure"]) == (2, 3, "failure")
    for arguments in ((), ("--attempt", "1"), ("--attempt", "2", "--step", "0", "--follow")):
        assert runstream("log", "get", run, "flaky", *arguments).out == "first line\nsecond line\n"
    refused = runstream("log", "get", run, "flaky", "--attempt", "3", "--step", "0")
    assert refused.err.startswith("error: log doesn't exist: task 'flaky' has no attempt 3: its last is 2\n")


def test_errors_name_files_and_refs_as_they_were_given(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.tar").write_text("no snapshot" * 100)
    for words in (
        ("import", "x.tar", "--dry-run"),
        ("snapshot", "show", "x.tar"),
        ("snapshot", "diff", "x.tar", "x.tar"),
    ):
        done = command(*words)
        assert (done.code, done.err.splitlines()[0]) == (1, "error: x.tar: it is not a snapshot"), words
    subprocess.run(["git", "init", "-q", "."], check=True)
    (tmp_path / "c.yml").write_text("runs: []\n")
    done = command("run", "create", "--config", "c.yml", "--ref", "nope")
    assert done.err.splitlines()[0] == (
        f"error: git cannot find nope of {tmp_path}: no branch, tag, ref or commit has this name"
    )
    monkeypatch.setenv("RUNSTREAM_CONFIG", "s.yml")
    for wrong, hint in (("nats_ulr", "--help"), ("zzzzzzzz", "settings are ")):
        (tmp_path / "s.yml").write_text(f"{wrong}: x\n")
        done = command("doctor", "--config", "s.yml")
        assert hint in done.err.splitlines()[1], done.err
        assert len(done.err) < 300 or wrong == "zzzzzzzz"


def test_detailed_errors_begin_with_the_code(command: Command) -> None:
    done = command("--detailed-errors", "run", "create", "--config", "nowhere.yml")
    assert done.err.splitlines()[2] == "  code configDoesNotExist, kind not-exist", done.err


def test_it_runs_as_a_module_and_says_how_it_was_called(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runstream", "config", "check", "none.yml"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr.partition("\n")[0]) == (
        1,
        "error: there is no configuration file none.yml",
    )
