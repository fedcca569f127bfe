"""Git is run without hooks and foreign settings, over allowed protocols, within limits, and leaves no process."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from runstream.errors import BadRequestError
from runstream.git.command import Git, GitError, GitLimits, service_git, user_git
from runstream.git.login import ended_lines, ssh_config, with_password, with_ssh
from runstream.open_files import out_of_files
from tests.git.repositories import git, new_repository
from tests.open_files import free_descriptors


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository", {"file": "one"})


@pytest.fixture
def service(tmp_path: Path) -> Git:
    return service_git(tmp_path / "own")


async def test_no_hook_of_a_repository_is_run(repository: Path, service: Git) -> None:
    hook = repository / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch ran\n")
    hook.chmod(0o755)
    git(repository, "branch", "with-hooks")
    assert (repository / "ran").exists() or (repository / ".git" / "ran").exists()
    for ran in (repository / "ran", repository / ".git" / "ran"):
        ran.unlink(missing_ok=True)
    await service.ask("update-ref", "refs/heads/a", "HEAD", folder=repository)
    assert user_git().run_here("update-ref", "refs/heads/b", "HEAD", folder=repository).status == 0
    assert not (repository / "ran").exists()
    assert not (repository / ".git" / "ran").exists()


async def test_variables_and_files_of_the_user_do_not_reach_the_git_of_a_service(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = from a file\n")
    for name, value in {
        "HOME": str(tmp_path),
        "GIT_DIR": str(tmp_path / "elsewhere"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "from a variable",
        "GIT_SSH_COMMAND": "touch ran",
        "RUNSTREAM_TOKEN": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    service = service_git(tmp_path / "own")
    assert "secret" not in str(service.environment)
    assert (await service.run("config", "user.name", folder=repository)).status == 1
    assert (await service.ask("rev-parse", "--absolute-git-dir", folder=repository)).text == str(repository / ".git")
    assert user_git().run_here("config", "user.name", folder=repository).text == "from a variable"


@pytest.mark.parametrize("url", ["ext::touch ran", "file:///{repository}", "{repository}", "git://127.0.0.1:1/x"])
async def test_a_protocol_that_is_not_allowed_is_refused(repository: Path, service: Git, url: str) -> None:
    given = url.format(repository=repository)
    done = await service.run("ls-remote", "--end-of-options", given, folder=repository)
    assert done.status == 128
    assert "not allowed" in done.reason
    assert not (repository / "ran").exists()
    allowed = service_git(service_folder(service), ["file"])
    assert (await allowed.run("ls-remote", "--end-of-options", str(repository))).status == 0


def service_folder(service: Git) -> Path:
    return Path(service.environment["GIT_CONFIG_GLOBAL"]).parent


async def test_output_above_the_limit_is_refused(repository: Path, service: Git) -> None:
    with pytest.raises(BadRequestError, match="larger than 10 bytes") as refused:
        await service.within(GitLimits(output_bytes=10)).run("rev-parse", "HEAD", folder=repository)
    assert refused.value.code == "gitOutputTooLarge"


async def test_a_file_above_the_limit_is_not_written(repository: Path, service: Git) -> None:
    large = bytes(range(256)) * 40 + bytes(str(list(range(9000))), "ascii")
    with pytest.raises(GitError, match="git cannot store it: "):
        await service.within(GitLimits(file_bytes=2048)).ask(
            "hash-object", "-w", "--stdin", folder=repository, given=large, what="store it"
        )
    await service.ask("hash-object", "-w", "--stdin", folder=repository, given=large)


async def test_git_that_takes_too_long_is_ended(repository: Path, service: Git) -> None:
    git(repository, "config", "alias.hang", "!sleep 600")
    with pytest.raises(BadRequestError, match=r"did not answer within 0\.05 s for hang") as refused:
        await service.within(GitLimits(seconds=0.05)).run("hang", folder=repository)
    assert refused.value.code == "gitTimeout"


async def test_a_cancelled_git_leaves_no_child(tmp_path: Path, repository: Path, service: Git) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    git(repository, "config", "alias.hang", f"!trap '' TERM; echo $$ >{told}; sleep 600")
    hanging = asyncio.create_task(service.within(GitLimits(seconds=50)).run("hang", folder=repository))
    child = psutil.Process(int(await asyncio.to_thread(told.read_text)))
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert psutil.wait_procs([child], timeout=5)[1] == []


async def test_output_that_is_not_read_leaves_no_descriptor(repository: Path, service: Git) -> None:
    (repository / "large").write_bytes(bytes(150_000))
    blob = git(repository, "hash-object", "-w", "large")
    await service.ask("cat-file", "-t", blob, folder=repository)
    before = open_descriptors()
    async with service.running("cat-file", "blob", blob, folder=repository) as running:
        await running.write_all()
        assert await running.ended() == 0
    assert open_descriptors() == before


async def test_git_is_started_without_a_fork_of_this_process(service: Git) -> None:
    forks: list[None] = []
    os.register_at_fork(before=lambda: forks.append(None))
    assert (await service.run("version")).status == 0
    assert forks == []


async def test_a_start_without_descriptors_leaves_no_process_and_no_descriptor(service: Git) -> None:
    await service.run("version")
    before, children = open_descriptors(), psutil.Process().children()
    for free in range(40):
        with free_descriptors(free):
            try:
                assert (await service.run("version")).status == 0
                break
            except OSError as error:
                assert out_of_files(error)  # noqa: PT017
        await asyncio.sleep(0)  # the loop closes pipes in its next round
        assert open_descriptors() == before
        assert psutil.Process().children() == children
    assert free >= 6


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def test_a_password_is_given_to_its_host_alone_and_is_no_argument(service: Git) -> None:
    git = with_password(service, "https://git.example:8443/a/b.git", "me", "pa:ss w0rd")
    assert "pa:ss w0rd" not in repr(git)
    asked = await git.ask("credential", "fill", given=b"protocol=https\nhost=git.example:8443\n\n")
    assert "username=me\npassword=pa:ss w0rd" in asked.text
    for other in (b"host=git.example", b"host=elsewhere.example:8443"):
        done = await git.run("credential", "fill", given=b"protocol=https\n" + other + b"\n\n")
        assert done.status == 128
        assert b"pa:ss" not in done.output


def test_a_password_of_two_lines_is_refused(service: Git) -> None:
    with pytest.raises(BadRequestError, match="line break"):
        with_password(service, "https://h/x", "me", "a\nhost=elsewhere")


def test_ssh_reads_its_configuration(tmp_path: Path) -> None:
    config = tmp_path / "ssh config"
    config.write_text(
        ssh_config(
            key_file="/a b/key",
            known_hosts_file="/a b/hosts",
            check_host=True,
            host="git.example",
            port="2222",
            address="192.0.2.7",
        )
    )
    read = subprocess.run(["ssh", "-G", "-F", config, "git.example"], check=True, capture_output=True, text=True).stdout
    lines = read.splitlines()
    for line in (
        "hostname 192.0.2.7",
        "hostkeyalias [git.example]:2222",
        "port 2222",
        "identityfile /a b/key",
        "userknownhostsfile /a b/hosts",
        "stricthostkeychecking true",
        "batchmode yes",
        "passwordauthentication no",
    ):
        assert line in lines, read


@pytest.mark.parametrize(("host", "port"), [("h -oProxyCommand=x", "22"), ("h\n  ProxyCommand x", ""), ("h", "2 2")])
def test_a_host_that_is_none_is_refused(host: str, port: str) -> None:
    with pytest.raises(BadRequestError, match="not valid"):
        ssh_config(key_file="k", known_hosts_file="h", check_host=True, host=host, port=port)


def test_the_ssh_of_git_has_only_our_configuration(tmp_path: Path, service: Git) -> None:
    assert with_ssh(service, tmp_path / "a b").environment["GIT_SSH_COMMAND"] == f"ssh -F '{tmp_path / 'a b'}'"
    assert ended_lines("a\r\nb") == "a\nb\n"
