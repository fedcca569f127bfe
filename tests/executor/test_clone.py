"""The clone step: which commit, its submodules, how much history, and whose settings git follows."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import Step
from tests.executor.rig import SETTINGS, rig, run_step
from tests.executor.test_workspace import git
from tests.sandboxes import needs_sandbox

SUCCESS, FAILED = ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED
Mode = Literal["require", "off"]
modes = pytest.mark.parametrize("sandbox", [pytest.param("require", marks=needs_sandbox), "off"])


def made(folder: Path, *messages: str) -> Path:
    """Make a repository with a commit for each message; its file `file` has the message."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for message in messages:
        (folder / "file").write_text(f"{message}\n")
        git(folder, "add", "file")
        git(folder, "commit", "-q", "-m", message)
    return folder


def cloning(**fields: object) -> Step:
    return Step(type="clone", name="clone", **fields)  # type: ignore[arg-type]


@modes
async def test_a_shallow_clone_has_the_commit_alone_however_old_it_is_and_whatever_was_pushed(
    tmp_path: Path, sandbox: Mode
) -> None:
    repository = made(tmp_path / "r", "one", "two", "three")
    old, tip = git(repository, "rev-parse", "HEAD~2"), git(repository, "rev-parse", "HEAD")
    git(repository, "switch", "-q", "-c", "other")
    git(repository, "commit", "-q", "--allow-empty", "-m", "other")
    other = git(repository, "rev-parse", "HEAD")
    git(repository, "switch", "-q", "main")
    git(repository, "commit", "-q", "--amend", "--allow-empty", "-m", "in place of the tip")
    cases = [("main", old, "one"), ("main", tip, "three"), ("other", other, "other"), ("other", "", "other")]
    async with rig(tmp_path / "executor", settings=replace(SETTINGS, sandbox=sandbox)) as it:
        for url in (str(repository), repository.as_uri()):
            for ref, commit, message in cases:
                environment = {"AGOLA_REPOSITORY_URL": url, "AGOLA_GIT_REF": ref, "AGOLA_GIT_COMMITSHA": commit}
                show = run_step("git log --format=%s")
                done = await it.run(cloning(depth=1), show, environment=environment)
                assert done.task.phase is SUCCESS, await done.log(0)
                assert await done.log(1) == f"{message}\n", (url, ref)
        environment = {"AGOLA_REPOSITORY_URL": str(repository), "AGOLA_GIT_COMMITSHA": tip}
        done = await it.run(cloning(), run_step("git log --format=%s"), environment=environment)
        assert await done.log(1) == "three\ntwo\none\n"


async def test_a_server_that_gives_no_single_commits_gives_the_history_of_the_ref(tmp_path: Path) -> None:
    repository = made(tmp_path / "r", "one", "two", "three")
    git(repository, "config", "uploadpack.allowAnySHA1InWant", "false")
    git(repository, "config", "uploadpack.allowReachableSHA1InWant", "false")
    old_protocol = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.version", "GIT_CONFIG_VALUE_0": "0"}
    environment = {
        "AGOLA_REPOSITORY_URL": repository.as_uri(),
        "AGOLA_GIT_REF": "main",
        "AGOLA_GIT_COMMITSHA": git(repository, "rev-parse", "HEAD~1"),
        **old_protocol,
    }
    async with rig(tmp_path / "executor") as it:
        done = await it.run(cloning(depth=1), run_step("git log --format=%s"), environment=environment)
        assert done.task.phase is SUCCESS, await done.log(0)
        assert "the server does not give this commit alone" in await done.log(0)
        assert await done.log(1) == "two\none\n"


@modes
async def test_a_worktree_and_a_checked_out_submodule_are_repositories(tmp_path: Path, sandbox: Mode) -> None:
    main, lib = made(tmp_path / "main", "one"), made(tmp_path / "lib", "lib")
    git(main, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    git(tmp_path / "side", "commit", "-q", "--allow-empty", "-m", "side")
    git(main, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(lib), "inner")
    async with rig(tmp_path / "executor", settings=replace(SETTINGS, sandbox=sandbox)) as it:
        for folder, message in ((tmp_path / "side", "side"), (main / "inner", "lib")):
            environment = {"AGOLA_REPOSITORY_URL": str(folder)}
            done = await it.run(cloning(), run_step("git log -1 --format=%s"), environment=environment)
            assert (done.task.phase, await done.log(1)) == (SUCCESS, f"{message}\n"), await done.log(0)


@modes
async def test_submodules_are_those_of_the_commit(tmp_path: Path, sandbox: Mode) -> None:
    lib, app = made(tmp_path / "lib", "l1", "l2"), made(tmp_path / "app", "a")
    git(app, "checkout", "-q", "-b", "feature")
    git(app, "-c", "protocol.file.allow=always", "submodule", "add", "-q", "../lib", "lib")
    git(app / "lib", "checkout", "-q", "HEAD~1")
    git(app, "commit", "-q", "-am", "lib")
    git(app, "checkout", "-q", "main")
    git(lib, "commit", "-q", "--allow-empty", "-m", "l3")
    environment = {"AGOLA_REPOSITORY_URL": str(app), "AGOLA_GIT_REF": "feature"}
    show = run_step("cat lib/file")
    async with rig(tmp_path / "executor", settings=replace(SETTINGS, sandbox=sandbox)) as it:
        for fields in ({}, {"depth": 1}):
            done = await it.run(cloning(recurse_submodules=True, **fields), show, environment=environment)
            assert done.task.phase is SUCCESS, await done.log(0)
            assert await done.log(1) == "l1\n"


@modes
async def test_git_is_not_pointed_elsewhere_and_follows_settings_of_the_task(tmp_path: Path, sandbox: Mode) -> None:
    repository, other = made(tmp_path / "r", "ours"), made(tmp_path / "other", "theirs")
    environment = {
        "AGOLA_REPOSITORY_URL": "alias:r",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{tmp_path}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "alias:",
        **dict.fromkeys(("GIT_DIR", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"), str(other / ".git")),
        "GIT_INDEX_FILE": "/tmp/index",
    }
    async with rig(tmp_path / "executor", settings=replace(SETTINGS, sandbox=sandbox)) as it:
        if sandbox == "off":
            done = await it.run(cloning(), run_step("cat file"), environment=environment)
            assert (done.task.phase, await done.log(1)) == (SUCCESS, "ours\n"), await done.log(0)
        environment["AGOLA_REPOSITORY_URL"] = str(repository)
        done = await it.run(cloning(), run_step("cat file"), environment=environment)
        assert (done.task.phase, await done.log(1)) == (SUCCESS, "ours\n"), await done.log(0)
    assert git(other, "status", "--porcelain") == ""


@modes
async def test_no_hook_runs_in_the_clone_step_and_the_tasks_own_configuration_is_left(
    tmp_path: Path, sandbox: Mode
) -> None:
    repository = made(tmp_path / "r", "ours")
    plant = """
        mkdir -p ~/hooks ~/.config/git ~/.ssh
        for hook in post-checkout reference-transaction post-merge; do
          printf '#!/bin/sh\\ntouch ~/hook-ran\\n' >~/hooks/$hook; chmod +x ~/hooks/$hook; done
        git config -f ~/.config/git/config core.hooksPath ~/hooks
        git config -f ~/.config/git/config uploadpack.packObjectsHook ~/hooks/post-merge
        cp ~/.config/git/config ~/.gitconfig
    """
    async with rig(tmp_path / "executor", settings=replace(SETTINGS, sandbox=sandbox)) as it:
        done = await it.run(
            run_step(plant),
            cloning(),
            run_step("test ! -e ~/hook-ran; cat ~/.gitconfig; cat file; git rev-parse HEAD"),
            environment={"AGOLA_REPOSITORY_URL": str(repository)},
        )
        assert done.task.phase is SUCCESS, await done.log(1)
        assert "hooks" in await done.log(2)


@modes
async def test_a_repository_among_hidden_files_is_refused_and_of_others_the_git_directory_alone_is_seen(
    tmp_path: Path, sandbox: Mode
) -> None:
    data = tmp_path / "executor"
    data.mkdir()
    hidden = made(data / "r", "hidden")
    (tmp_path / "link").symlink_to(hidden)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "bare/objects").symlink_to(data)
    around = made(tmp_path / "around", "around")
    (around / ".git/data").symlink_to(data)
    async with rig(data, settings=replace(SETTINGS, sandbox=sandbox)) as it:
        for url in (str(hidden), hidden.as_uri(), str(tmp_path / "link"), f"{tmp_path}/x/../executor/r"):
            done = await it.run(cloning(), environment={"AGOLA_REPOSITORY_URL": url})
            assert done.task.phase is FAILED
            assert "out of reach of tasks" in await done.log(0), url
        done = await it.run(cloning(), run_step("cat file"), environment={"AGOLA_REPOSITORY_URL": str(around)})
        assert await done.log(1) == "around\n", await done.log(0)


@needs_sandbox
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")
async def test_a_repository_of_another_user_is_cloned_when_it_can_be_read_else_the_way_out_is_named(
    tmp_path: Path,
) -> None:
    repository = made(tmp_path / "r", "theirs")
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 12345, 12345)
    async with rig(tmp_path / "executor", settings=replace(SETTINGS, sandbox="require")) as it:
        environment = {"AGOLA_REPOSITORY_URL": str(repository)}
        done = await it.run(cloning(), run_step("cat file"), environment=environment)
        assert (done.task.phase, await done.log(1)) == (SUCCESS, "theirs\n"), await done.log(0)
        (repository / ".git").chmod(0o700)
        done = await it.run(cloning(), environment=environment)
        assert "chmod -R o+rX" in await done.log(0)
