"""Handing files from task to task, and cloning repositories."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from msgspec import structs

from runstream.commits import Head
from runstream.errors import InternalError
from runstream.events.executor_task import (
    ExecutorTaskArchiveStored,
    ExecutorTaskPhase,
    ExecutorTaskStepFinished,
)
from runstream.events.run import RunRestarted
from runstream.events.run_config import Step
from runstream.executor.masking import Masking
from runstream.executor.steps.workspace import shown_warnings
from runstream.ids import new_id, run_task_id
from runstream.objects import ByteSource, PosixObjects, paths
from runstream.subjects import Address
from tests.executor.rig import SETTINGS, Watched, config_of, rig, run_step, save_step, task_of
from tests.factories import run_created, task_kept
from tests.sandboxes import needs_sandbox

SUCCESS, FAILED = ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED
RESTORE = Step(type="restore_workspace", dest_dir="")


async def test_an_archive_is_handed_to_all_descendants(tmp_path: Path) -> None:
    build = task_of("build", run_step("mkdir -p dist/x; echo wheel > dist/x/w"), save_step("**"))
    test = task_of("test", RESTORE, run_step("echo more > more"), save_step("more"), depends=("build",), level=1)
    ship = task_of(
        "ship",
        Step(type="restore_workspace", dest_dir="~/ws"),
        run_step("cd ~/ws; cat dist/x/w more"),
        depends=("test",),
    )
    config = config_of(build, test, ship)
    run_id = new_id()
    async with rig(tmp_path) as it:
        done: list[Watched] = []
        for task in (build, test, ship):
            watched = await it.assign(task, config=config, run_id=run_id)
            assert (await watched.settled()).phase is SUCCESS, await watched.log(0)
            done.append(watched)
        assert await done[2].log(1) == "wheel\nmore\n"
        assert await it.is_stored(paths.archive(done[0].run_task_id, 1))
        assert await it.is_stored(paths.archive_reference(done[0].run_task_id, run_id))
        assert await done[1].log(0) == "restored 3 files and folders of task build\n"


@pytest.mark.parametrize("sandbox", [pytest.param("require", marks=needs_sandbox), "off"])
async def test_links_and_the_same_file_of_two_tasks_are_restored_and_what_differs_names_both(
    tmp_path: Path, sandbox: Literal["require", "off"]
) -> None:
    links = "ln -s /usr/bin/env absolute; ln -s ../x up; ln -s nothere dangling"
    build = task_of("build", run_step(f"{links}; echo same > .gitignore"), save_step("./", "nothere/**", "dangling"))
    other = task_of("other", run_step("echo same > .gitignore"), save_step("*"))
    third = task_of("third", run_step("echo other > .gitignore"), save_step("*"))
    show = run_step("cat .gitignore; readlink absolute up dangling; stat -c %U .gitignore; id -un")
    join = task_of("join", RESTORE, show, depends=("build", "other"), level=1)
    fail = task_of("fail", RESTORE, depends=("build", "third"), level=1)
    config = config_of(build, other, third, join, fail)
    run_id = new_id()
    async with rig(tmp_path, settings=replace(SETTINGS, sandbox=sandbox)) as it:
        done: dict[str, Watched] = {}
        for task in config.tasks.values():
            done[task.name] = await it.assign(task, config=config, run_id=run_id)
            await done[task.name].settled()
        warning, saved = (await done["build"].log(1)).splitlines()
        assert warning == "warning: pattern 'nothere/**' selects nothing in the working directory"
        assert [step.warnings for step in done["build"].task.steps] == [(), (warning.removeprefix("warning: "),)]
        assert saved.startswith("saved 4 files and folders, ")
        assert (await done["join"].log(1)).splitlines()[:4] == ["same", "/usr/bin/env", "../x", "nothere"]
        owner, user = (await done["join"].log(1)).splitlines()[4:]
        assert owner == user
        assert done["fail"].task.phase is FAILED
        assert await done["fail"].log(0) == (
            "restored 4 files and folders of task build\n"
            "'.gitignore' cannot be restored: it differs between task 'build' and task 'third'\n"
        )
        assert done["fail"].task.fail_error == (
            "step 0 failed: '.gitignore' cannot be restored: it differs between task 'build' and task 'third'"
        )
        assert done["fail"].task.steps[0].exit_status == 1


async def test_an_archive_is_stored_before_its_step_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        done = await it.run(run_step("echo > f"), save_step("f"))
        events = [event for stored in done.history for event in stored.commit.events]
        marks = [event for event in events if isinstance(event, ExecutorTaskArchiveStored | ExecutorTaskStepFinished)]
        assert [type(mark) for mark in marks] == [
            ExecutorTaskStepFinished,
            ExecutorTaskArchiveStored,
            ExecutorTaskStepFinished,
        ]


def test_the_warnings_that_a_run_shows_are_masked_and_bounded() -> None:
    masking = Masking.of(["s3cret-name"])
    few = ("pattern 's3cret-name/**' selects nothing", "x" * 501)
    masked = "pattern '***/**' selects nothing"
    assert shown_warnings(few, masking) == (masked, "x" * 499 + "…")
    assert shown_warnings(few[:1] * 10, masking) == (masked,) * 10
    assert shown_warnings(few[:1] * 12, masking) == (*[masked] * 9, "and 3 more warnings: see the step's log")


class FailingObjects(PosixObjects):
    """Refuses what the test says."""

    refused = ""

    async def write(self, path: str, source: ByteSource, *, size: int = -1, persist: bool = False) -> None:
        if self.refused and path.startswith(self.refused):
            raise InternalError(f"no space for {path}")
        await super().write(path, source, size=size, persist=persist)

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        if self.refused and any(path.startswith(self.refused) for path in contents):
            raise InternalError("no space")
        await super().write_all(contents)


async def test_a_step_whose_archive_cannot_be_stored_fails(tmp_path: Path) -> None:
    objects = FailingObjects(tmp_path / "objects")
    objects.refused = paths.ARCHIVES
    async with rig(tmp_path, objects=objects) as it:
        done = await it.run(run_step("echo > f"), save_step("f"))
        assert (done.task.phase, done.task.steps[1].archive_stored) == (FAILED, False)
        assert "no space" in await done.log(1)


async def test_a_task_ends_without_its_logs_when_they_cannot_be_stored_and_they_follow(tmp_path: Path) -> None:
    objects = FailingObjects(tmp_path / "objects")
    objects.refused = paths.LOGS
    async with rig(tmp_path, objects=objects) as it:
        task = await it.assign(task_of("task", run_step("echo kept")))
        ended = await task.ended()
        assert (ended.phase, ended.settled) == (SUCCESS, False)
        objects.refused = ""
        await task.settled()
        assert await task.log() == "kept\n"


async def test_restoring_what_a_parent_did_not_save(tmp_path: Path) -> None:
    build = task_of("build", run_step("exit 1"), save_step("**"))
    child = task_of("child", RESTORE, depends=("build",), level=1)
    config = config_of(build, child)
    run_id = new_id()
    async with rig(tmp_path) as it:
        await (await it.assign(build, config=config, run_id=run_id)).settled()
        watched = await it.assign(child, config=config, run_id=run_id)
        assert (await watched.settled()).phase is SUCCESS
        assert await watched.log() == "task build saved nothing in step 1\n"


async def test_restoring_what_is_no_longer_there(tmp_path: Path) -> None:
    build = task_of("build", save_step("**"))
    child = task_of("child", RESTORE, depends=("build",), level=1)
    config = config_of(build, child)
    run_id = new_id()
    async with rig(tmp_path) as it:
        parent = await it.assign(build, config=config, run_id=run_id)
        await parent.settled()
        await it.objects.delete(paths.archive(parent.run_task_id, 0))
        watched = await it.assign(child, config=config, run_id=run_id)
        assert (await watched.settled()).phase is FAILED
        assert "no longer there" in await watched.log()


async def test_restoring_what_a_task_of_an_earlier_run_saved(tmp_path: Path) -> None:
    """A task that a restart keeps: its archive is where it was, and so is what is known of it."""
    build = task_of("build", run_step("echo wheel > w"), save_step("w"))
    lint = task_of("lint", save_step("**"))
    child = task_of("child", RESTORE, run_step("cat w"), depends=("build", "lint"), level=1)
    config, earlier = config_of(build, lint, child), new_id()
    run_id = earlier[:8] + new_id()[8:]  # on the same partition
    async with rig(tmp_path) as it:
        parent = await it.assign(build, config=config, run_id=earlier)
        await parent.settled()
        kept = (
            task_kept("build", parent.run_task_id, parent.address.id),
            task_kept("lint", run_task_id(earlier, "lint")),
        )
        restarted = RunRestarted(earlier, "chosen", ("child",), descendants=False, fresh=False, kept=kept)
        created = run_created("test", run_config="")
        address = Address(parent.address.partition, "run", run_id)
        await it.log.append(Head().next_commit(address, (created, restarted), time=datetime.now(UTC), actor="user"))

        workspaces = {one.task: one.id for one in kept}
        again = await it.assign(child, config=config, run_id=run_id, workspaces=workspaces)
        assert (await again.settled()).phase is SUCCESS
        assert await again.log(1) == "wheel\n"
        assert "task lint saved nothing in step 0\n" in await again.log(0)

        await it.objects.delete(paths.archive(parent.run_task_id, 1))
        other = structs.replace(child, name="other")
        late = await it.assign(other, config=config_of(build, lint, other), run_id=run_id, workspaces=workspaces)
        assert (await late.settled()).phase is FAILED
        assert "the archive that task 'build' saved is no longer there" in await late.log(0)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for number in range(3):
        (folder / "file").write_text(f"main {number}\n")
        git(folder, "add", "file")
        git(folder, "commit", "-q", "-m", f"{number}")
    git(folder, "tag", "v1", "HEAD~1")
    git(folder, "switch", "-q", "-c", "other")
    (folder / "file").write_text("other\n")
    git(folder, "commit", "-q", "-a", "-m", "other")
    git(folder, "switch", "-q", "main")
    git(folder, "update-ref", "refs/pull/1/head", "other")
    return folder


@pytest.mark.parametrize(
    ("variables", "step", "content"),
    [
        ({}, {}, "main 2"),
        ({"AGOLA_GIT_REF": "refs/heads/other"}, {}, "other"),
        ({"AGOLA_GIT_REF": "v1"}, {}, "main 1"),
        ({"AGOLA_GIT_REF": "refs/pull/1/head"}, {}, "other"),
        ({"AGOLA_GIT_REF": "main", "AGOLA_GIT_COMMITSHA": "HEAD~2"}, {}, "main 0"),
        ({"AGOLA_GIT_REF": "main"}, {"depth": 1}, "main 2"),
        ({"AGOLA_GIT_REF": "main"}, {"recurse_submodules": True}, "main 2"),
    ],
)
async def test_clone(
    tmp_path: Path, repository: Path, variables: dict[str, str], step: dict[str, int], content: str
) -> None:
    if "AGOLA_GIT_COMMITSHA" in variables:
        variables = {**variables, "AGOLA_GIT_COMMITSHA": git(repository, "rev-parse", variables["AGOLA_GIT_COMMITSHA"])}
    environment = {"AGOLA_REPOSITORY_URL": str(repository), **variables}
    clone = Step(type="clone", name="clone", **step)  # type: ignore[arg-type]
    async with rig(tmp_path / "executor") as it:
        done = await it.run(clone, run_step("cat file; git rev-list --count HEAD"), environment=environment)
        assert done.task.phase is SUCCESS, await done.log(0)
        lines = (await done.log(1)).splitlines()
        assert lines[0] == content
        if "depth" in step:
            assert lines[1] == "1"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "AGOLA_REPOSITORY_URL is not set"),
        ({"AGOLA_REPOSITORY_URL": "--upload-pack=evil"}, "begins with '-'"),
        ({"AGOLA_REPOSITORY_URL": "/nowhere/at/all"}, "does not exist"),
        ({"AGOLA_REPOSITORY_URL": "REPO", "AGOLA_GIT_REF": "--exec=evil"}, "begins with '-'"),
        ({"AGOLA_REPOSITORY_URL": "REPO", "AGOLA_GIT_REF": "no-such-ref"}, "couldn't find remote ref"),
        ({"AGOLA_REPOSITORY_URL": "REPO", "AGOLA_GIT_COMMITSHA": "$(evil)"}, "is not a commit"),
    ],
)
async def test_what_cannot_be_cloned(tmp_path: Path, repository: Path, environment: dict[str, str], said: str) -> None:
    environment = {name: value.replace("REPO", str(repository)) for name, value in environment.items()}
    async with rig(tmp_path / "executor") as it:
        done = await it.run(Step(type="clone"), environment=environment)
        assert done.task.phase is FAILED
        assert said in await done.log(0)


async def test_a_clone_by_ssh_uses_the_given_key_and_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "ssh").write_text(
        '#!/bin/sh\necho "ssh $*" >&2\ncat "$2" ~/.ssh/known_hosts ~/.ssh/id_rsa >&2\nexit 1\n'
    )
    (bin_folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    environment = {
        "AGOLA_REPOSITORY_URL": "git@git.example.com:a/b.git",
        "AGOLA_SSHPRIVKEY": "the key",
        "AGOLA_SSHHOSTKEY": "git.example.com ssh-ed25519 AAAA",
        "AGOLA_GIT_HOST": "git.example.com",
        "AGOLA_GIT_PORT": "2222",
    }
    async with rig(tmp_path / "executor") as it:
        said = await (await it.run(Step(type="clone"), environment=environment)).log(0)
        for expected in ("Host git.example.com", "Port 2222", "StrictHostKeyChecking yes", "AAAA\n", "the key\n"):
            assert expected in said
        environment["AGOLA_GIT_HOST"] = "x\n  ProxyCommand evil"
        assert "are not valid" in await (await it.run(Step(type="clone"), environment=environment)).log(0)
