"""Direct runs of a dirty working tree, and runs of a project's repository, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.config_service import config_service
from tests.cli.conftest import Command, Outcome
from tests.gateway.world import TOKEN
from tests.git.repositories import git, new_repository

CONFIG = """
runs:
  - name: {name}
    tasks:
      - name: build
        runtime: {{type: host}}
        environment: {{STAGE: {{from_variable: STAGE}}}}
        steps: [{{clone: {{}}}}, {{run: make}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with config_service(folder) as at:
        yield at


@pytest.fixture
def as_user(command: Command, url: str) -> Callable[[str], Command]:
    """Create a user; return a function that runs a command as this user."""

    def made(name: str) -> Command:
        admin = ("--url", url, "--token", TOKEN, "user")
        assert command(*admin, "create", "-n", name).code == 0
        token = command(*admin, "token", "create", "-n", name, "-t", "test").out.strip()
        return lambda *words: command("--url", url, "--token", token, *words)

    return made


def succeeded(done: Outcome) -> Outcome:
    assert done.code == 0, done
    return done


def test_a_dirty_working_tree_is_pushed_and_run(
    as_user: Callable[[str], Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = as_user("ann")
    clone = new_repository(tmp_path / "clone", {".runstream/config.yml": CONFIG.format(name="committed")})
    (clone / ".runstream" / "config.yml").write_text(CONFIG.format(name="dirty"))
    before = git(clone, "status", "--porcelain"), git(clone, "rev-parse", "HEAD")
    (tmp_path / "variables.yml").write_text("STAGE: file\nOTHER: x\n")
    monkeypatch.chdir(clone / ".runstream")
    done = succeeded(ann("directrun", "start", "--var-file", str(tmp_path / "variables.yml"), "--var", "STAGE=test"))
    assert "the runs of refs/heads/master are created: " in done.out
    assert (git(clone, "status", "--porcelain"), git(clone, "rev-parse", "HEAD")) == before
    succeeded(ann("directrun", "start", "--tag", "v1"))
    succeeded(ann("directrun", "start", "--ref", "refs/pull/7/head"))
    refused = ann("directrun", "start", "--ref", "refs/changes/7")
    assert (refused.code, "neither a branch, nor a tag, nor a pull request" in refused.err) == (1, True)
    regex = r"refs/changes/(\d+)"
    succeeded(ann("directrun", "start", "--ref", "refs/changes/7", "--pull-request-ref-regexes", regex))
    refused = ann("directrun", "start", "--branch", "main", "--tag", "v1")
    assert (refused.code, "give only one of" in refused.err) == (1, True)
    git(clone, "checkout", "-q", "--detach")
    assert "no branch is checked out" in ann("directrun", "start").err


def test_runs_of_a_projects_repository_are_created(
    as_user: Callable[[str], Command], folder: Path, tmp_path: Path
) -> None:
    bob, eve = as_user("bob"), as_user("eve")
    host = new_repository(folder / "hosts" / "web", {".runstream/config.yml": CONFIG.format(name="main")})
    succeeded(bob("project", "create", "-n", "web", "--parent", "user/bob", "--repo-url", str(host)))
    create = ("project", "run", "create", "--project", "user/bob/web")
    assert "the runs of refs/heads/main are created" in succeeded(bob(*create, "--branch", "main")).out
    assert "has no ref refs/heads/gone" in bob(*create, "--branch", "gone").err
    assert "give exactly one of" in bob(*create).err
    assert "give only one of" in bob(*create, "--branch", "main", "--tag", "v1").err
    succeeded(bob("project", "update", "--ref", "user/bob/web", "--default-branch", "main"))
    assert "the runs of the default branch are created" in succeeded(bob(*create)).out
    assert "you may not create a run" in eve(*create, "--branch", "main").err
    shorter = ("run", "create", "--project", "user/bob/web")
    assert "the runs of refs/heads/main are created" in succeeded(bob(*shorter, "--branch", "main")).out
    assert "the runs of the default branch are created" in succeeded(bob(*shorter)).out
    assert "has no ref refs/heads/gone" in bob(*shorter, "--branch", "gone").err
    assert "give only one of" in bob(*shorter, "--ref", "refs/heads/main", "--tag", "v1").err
    own = "/user/" + json.loads(succeeded(bob("user", "get", "--username", "bob", "--output", "json")).out)["id"]
    for command in (create, shorter):
        assert "are created" in succeeded(bob(*command, "--branch", "main", "--cache-group", own)).out
        assert "not yours to share" in bob(*command, "--branch", "main", "--cache-group", "/project/other").err
    assert "no cache matches" in succeeded(bob("cache", "list", "--group", own)).out
    assert "no such cache" in bob("cache", "delete", "gone", "--group", own).err
    assert "or you may not see it" in eve("cache", "list", "--group", own).err
    assert "name a group" in eve("cache", "list").err
    assert "give only --branch" in bob(*shorter, "--env", "A=b").err
    assert "give only --branch" in bob(*shorter, "--follow").err
    assert "name it with --project" in bob("run", "create", "--branch", "main").err


def test_runs_of_a_user_are_found_in_the_folder_that_they_are_of(
    as_user: Callable[[str], Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoe = as_user("zoe")
    clone = new_repository(tmp_path / "clone", {".runstream/config.yml": CONFIG.format(name="zoes")})
    monkeypatch.chdir(clone)
    succeeded(zoe("directrun", "start", "--branch", "main"))
    for name in ("latest", "@", "1"):
        assert "zoes" in succeeded(zoe("run", "get", name)).out, name
    assert "has no run 7" in zoe("run", "get", "7").err
    assert "does not fetch from the path" in zoe("run", "create").err  # not "there is no project"
    (tmp_path / "config.yml").write_text(CONFIG.format(name="mine").replace("{clone: {}}, ", ""))
    monkeypatch.chdir(tmp_path)
    assert "mine" in succeeded(zoe("run", "create", "--config", "config.yml")).out


def test_runs_and_logs_of_an_owner(
    as_user: Callable[[str], Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kim, lee = as_user("kim"), as_user("lee")
    clone = new_repository(tmp_path / "clone", {".runstream/config.yml": CONFIG.format(name="shown")})
    monkeypatch.chdir(clone)
    succeeded(kim("directrun", "start", "--branch", "a/b"))
    listed = succeeded(kim("run", "list", "--username", "kim"))
    assert "shown" in listed.out
    assert "refs/heads/a/b" in listed.out
    assert "shown" in succeeded(kim("run", "list", "--username", "kim", "--branch", "a/b")).out
    assert "shown" in succeeded(kim("run", "list", "--username", "kim", "--start", "2")).out
    assert "kim has no such runs" in succeeded(kim("run", "list", "--username", "kim", "--start", "1")).out
    assert "kim has no such runs" in succeeded(kim("run", "list", "--username", "kim", "--branch", "other")).out
    assert '"number":1' in succeeded(kim("run", "list", "--username", "kim", "-o", "json")).out.replace(" ", "")
    assert "you may not read direct runs" in lee("run", "list", "--username", "kim").err
    assert "does not exist" in kim("run", "list", "--project", "user/kim/gone").err
    assert "either --project or --username" in kim("run", "list", "--username", "kim", "--project", "user/kim/x").err
    one = ("--username", "kim", "--runnumber", "1")
    named = succeeded(kim("run", "get", *one)).out
    assert "shown" in named
    assert succeeded(kim("run", "get", "user/kim/1")).out == named
    assert "ticket" in succeeded(kim("run", "annotate", "build", "ticket=A-1", *one)).out
    assert "does not wait for approval" in kim("run", "approve", "build", *one).err
    for command in ("why", "history", "diff", "get"):
        succeeded(kim("run", command, *(["user/kim/1"] * (command == "diff")), *one, "--output", "json"))
        assert (
            "give either RUN, or --runnumber"
            in kim("run", command, *(["latest"] * (1 + (command == "diff"))), *one).err
        )
        assert "or you may not see it" in lee("run", command, *one).err
    assert "is cancelled" in succeeded(kim("run", "cancel", *one)).out
    for command in ("stop", "cancel", "pause", "resume", "delete", "restart", "follow"):
        assert "has no run 9" in kim("run", command, *one[:-1], "9").err, command
        assert "no run is named" in kim("run", command).err
        assert "does not exist" in kim("run", command, "--project", "user/kim/gone", "--runnumber", "1").err
    assert "user of group '/project/web'" in kim("run", "get", "--project", "web", "--runnumber", "1").err
    assert "no task is named" in kim("run", "approve", *one).err
    log = ("log", "get", "--username", "kim", "--runnumber", "1", "--taskname", "build")
    assert "(no log)" not in succeeded(kim(*log, "--step", "1")).out
    succeeded(kim(*log, "--step", "1", "--output", str(tmp_path / "step.log")))
    assert (tmp_path / "step.log").read_text() == succeeded(kim(*log, "--step", "1")).out
    assert "has no task 'biuld'" in kim(*log[:-1], "biuld", "--setup").err
    assert "did you mean 'make'" in kim(*log, "--step", "mkae").err
    assert "give either --step or --setup" in kim(*log).err
    delete = ("log", "delete", *log[2:])
    assert "the log is not stored yet" in kim(*delete, "--setup").err
    assert "you may not read direct runs" in lee(*delete, "--setup").err
    assert "give --runnumber" in kim("log", "delete", "--setup").err
    assert "no run is named" in kim("log", "get").err
    assert "--runnumber" in kim("log", "get", "latest", "--username", "kim").err
