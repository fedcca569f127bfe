"""The clone step: which commit, its submodules, how much history, and whose settings git follows."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest
from msgspec import structs

from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import Step
from runstream.executor.drivers.host_files import HostFiles
from runstream.sealing import seal_config, to_seal
from tests.executor.rig import KEYRING, SETTINGS, config_of, rig, run_step, task_of
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
async def test_a_committed_file_opens_no_repository_of_the_machine(tmp_path: Path, sandbox: Mode) -> None:
    private = made(tmp_path / "private", "secret")
    inner = made(tmp_path / "listed", "listed")
    app = made(tmp_path / "app", "a")
    encoded = f"file://{inner}/%2e%2e/private"
    git(app, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(private), "lib")
    settings = replace(SETTINGS, sandbox=sandbox, sandbox_readonly=(str(inner),))
    always = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow", "GIT_CONFIG_VALUE_0": "always"}
    async with rig(tmp_path / "executor", settings=settings) as it:
        (tmp_path / "app" / "way").symlink_to(private)
        git(app, "add", "way")
        for url in (str(private), private.as_uri(), "../private", encoded, f"{inner}/../private", "way", "./way"):
            git(app, "config", "--file=.gitmodules", "submodule.lib.url", url)
            git(app, "commit", "-q", "-am", url)
            environment = {"AGOLA_REPOSITORY_URL": str(app), **always}
            done = await it.run(cloning(recurse_submodules=True), environment=environment)
            assert done.task.phase is FAILED, url
            said = "neither in the cloned repository nor in a folder that the executor lets tasks clone"
            assert said in await done.log(0), await done.log(0)
            assert "executor.sandbox_readonly" in await done.log(0)


@modes
async def test_a_submodule_opens_no_repository_of_the_machine_either(tmp_path: Path, sandbox: Mode) -> None:
    private, listed, app = (
        made(tmp_path / "private", "secret"),
        made(tmp_path / "listed", "l"),
        made(tmp_path / "a", "a"),
    )
    for outer, url, at in ((listed, private, "deep"), (app, listed, "lib")):
        git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(url), at)
        git(outer, "commit", "-q", "-am", "a submodule")
    environment = {"AGOLA_REPOSITORY_URL": str(app)}
    for readonly, phase in ((listed,), FAILED), ((listed, private), SUCCESS):
        settings = replace(SETTINGS, sandbox=sandbox, sandbox_readonly=tuple(map(str, readonly)))
        async with rig(tmp_path / str(phase), settings=settings) as it:
            done = await it.run(
                cloning(recurse_submodules=True), run_step("cat lib/deep/file"), environment=environment
            )
            assert done.task.phase is phase, await done.log(0)
            if phase is SUCCESS:
                assert await done.log(1) == "secret\n"
            else:
                assert "executor.sandbox_readonly" in await done.log(0)


@modes
async def test_a_submodule_may_lie_in_the_repository_that_is_cloned(tmp_path: Path, sandbox: Mode) -> None:
    app = made(tmp_path / "app", "a")
    inner = made(app / "inner", "inner")
    git(app, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "lib")
    git(app, "config", "--file=.gitmodules", "submodule.lib.url", "./inner")
    git(app, "commit", "-q", "-am", "a submodule")
    async with rig(tmp_path / "executor", settings=replace(SETTINGS, sandbox=sandbox)) as it:
        environment = {"AGOLA_REPOSITORY_URL": str(app)}
        done = await it.run(cloning(recurse_submodules=True), run_step("cat lib/file"), environment=environment)
        assert (done.task.phase, await done.log(1)) == (SUCCESS, "inner\n"), await done.log(0)


@modes
async def test_submodules_are_those_of_the_commit(tmp_path: Path, sandbox: Mode) -> None:
    lib, app = made(tmp_path / "lib", "l1", "l2"), made(tmp_path / "app", "a")
    made(tmp_path / "other", "o")
    git(app, "checkout", "-q", "-b", "feature")
    git(app, "-c", "protocol.file.allow=always", "submodule", "add", "-q", "../lib", "lib")
    git(app / "lib", "checkout", "-q", "HEAD~1")
    git(app, "commit", "-q", "-am", "lib")
    git(app, "checkout", "-q", "main")
    git(app, "-c", "protocol.file.allow=always", "submodule", "add", "-q", "../other", "of_main")
    git(app, "commit", "-q", "-am", "another submodule")
    git(lib, "commit", "-q", "--allow-empty", "-m", "l3")
    environment = {"AGOLA_REPOSITORY_URL": str(app), "AGOLA_GIT_REF": "feature"}
    show = run_step("cat lib/file; ls")
    settings = replace(SETTINGS, sandbox=sandbox, sandbox_readonly=(str(lib),))
    async with rig(tmp_path / "executor", settings=settings) as it:
        for fields in ({}, {"depth": 1}):
            done = await it.run(cloning(recurse_submodules=True, **fields), show, environment=environment)
            assert done.task.phase is SUCCESS, await done.log(0)
            assert await done.log(1) == "l1\nfile\nlib\n"


@modes
async def test_git_is_not_pointed_elsewhere_and_follows_settings_of_the_task(
    tmp_path: Path, sandbox: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_NAMESPACE", "of-the-executor")
    repository, other = made(tmp_path / "r", "ours"), made(tmp_path / "other", "theirs")
    environment = {
        "AGOLA_REPOSITORY_URL": "alias:r",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{tmp_path}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "alias:",
        **dict.fromkeys(("GIT_DIR", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"), str(other / ".git")),
        "GIT_INDEX_FILE": "/tmp/index",
        "GIT_QUARANTINE_PATH": "/tmp/quarantine",
        "GIT_DEFAULT_HASH": "sha256",
        "GIT_REFLOG_ACTION": "theirs",
        "GIT_OF_A_LATER_VERSION": "1",
    }
    settings = replace(SETTINGS, sandbox=sandbox, pass_environment=("GIT_*",))
    show = run_step("cat file; cat .git/logs/HEAD | grep -c theirs || true", environment={"GIT_DIR": ""})
    async with rig(tmp_path / "executor", settings=settings) as it:
        if sandbox == "off":
            done = await it.run(cloning(), show, environment=environment)
            assert (done.task.phase, await done.log(1)) == (SUCCESS, "ours\n0\n"), await done.log(0)
        environment["AGOLA_REPOSITORY_URL"] = str(repository)
        done = await it.run(cloning(), show, environment=environment)
        assert (done.task.phase, await done.log(1)) == (SUCCESS, "ours\n0\n"), await done.log(0)
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
    around = made(tmp_path / "around", "around")
    (around / ".git/data").symlink_to(data)
    async with rig(data, settings=replace(SETTINGS, sandbox=sandbox)) as it:
        for url in (str(hidden), hidden.as_uri(), str(tmp_path / "link"), f"{tmp_path}/x/../executor/r"):
            done = await it.run(cloning(), environment={"AGOLA_REPOSITORY_URL": url})
            assert done.task.phase is FAILED
            assert "hidden from tasks" in await done.log(0), url
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


@contextlib.contextmanager
def serving(folder: Path, credentials: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder to those who have the credentials; yield the address, and what they sent."""
    sent: list[str] = []
    wanted = "Basic " + base64.b64encode(credentials.encode()).decode()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers["Authorization"] or "")
            if sent[-1] == wanted:
                super().do_GET()
                return
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=git")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Handler(*given, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@modes
@pytest.mark.parametrize("name", ["RUNSTREAM_GIT_PASSWORD", "AGOLA_GIT_PASSWORD", "in the URL"])
async def test_a_secret_password_reaches_git_and_nothing_else(tmp_path: Path, sandbox: Mode, name: str) -> None:
    bare = tmp_path / "served" / "x.git"
    git(made(tmp_path / "r", "one"), "clone", "-q", "--bare", ".", str(bare))
    git(bare, "update-server-info")
    password = "s3cr:t/p@ss wörd"
    look = run_step("env; cat ~/.runstream.credentials; git remote -v; git log -1 --format=%s")
    with serving(tmp_path / "served", f"user:{password}") as (address, sent):
        given = f":{quote(password, safe='')}" if name == "in the URL" else ""
        url = f"http://user{given}@{address}/x.git"
        environment = {} if given else {name: to_seal(password)}
        task = structs.replace(task_of("task", cloning(), look), environment=environment)
        config = seal_config(config_of(task, static={"AGOLA_REPOSITORY_URL": url, "AGOLA_SSHPRIVKEY": ""}), KEYRING)
        async with rig(tmp_path / "executor", settings=replace(SETTINGS, sandbox=sandbox)) as it:
            done = await it.assign(config.tasks["task"], config=config)
            await done.settled()
            assert done.task.phase is SUCCESS, await done.log(0)
            shown = await done.log(0) + await done.log(1)
    assert sent[-1]
    assert "s3cr" not in shown
    assert "***" not in shown
    assert f"http://user@{address}/x.git" in shown
    assert shown.endswith("one\n")


async def test_a_key_of_the_task_is_not_replaced_by_an_empty_one_of_the_project_and_only_git_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text("#!/bin/sh\nwc -c <~/.ssh/id_rsa >&2\nenv >&2\nexit 1\n")
    (tmp_path / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    secret = "-----BEGIN KEY-----\nabcdefgh\n-----END KEY-----\n"
    task = structs.replace(
        task_of("task", run_step("env"), cloning()),
        environment={"RUNSTREAM_SSHPRIVKEY": to_seal(secret), "AGOLA_SSHHOSTKEY": "x ssh-ed25519 AAAA"},
    )
    static = {"AGOLA_SSHPRIVKEY": "", "RUNSTREAM_SSHPRIVKEY": "", "AGOLA_REPOSITORY_URL": "git@x:a/b.git"}
    config = seal_config(config_of(task, static=static), KEYRING)
    async with rig(tmp_path / "executor") as it:
        done = await it.assign(config.tasks["task"], config=config)
        await done.settled()
        for log in (await done.log(0), await done.log(1)):
            assert "\nRUNSTREAM_SSHPRIVKEY=\n" in log
            assert "***" not in log
        assert f"\n{len(secret)}\n" in await done.log(1)


@pytest.mark.parametrize(("given", "written"), [("a\r\nb\r\n", "a\nb\n"), ("a\nb", "a\nb\n")])
async def test_line_ends_of_windows_in_a_key_do_not_reach_ssh(tmp_path: Path, given: str, written: str) -> None:
    """OpenSSL reads no private key with CR LF: "error in libcrypto"."""
    task = task_of(
        "task",
        Step(type="clone"),
        environment={"AGOLA_SSHPRIVKEY": given, "AGOLA_SSHHOSTKEY": "x ssh-ed25519 AAAA\r\n"},
    )
    config = config_of(task, static={"AGOLA_REPOSITORY_URL": "ssh://git@127.0.0.1:1/a.git"})
    async with rig(tmp_path) as it:
        kept: dict[str, bytes] = {}
        write = HostFiles.write

        async def noted(self: HostFiles, path: str, content: bytes, mode: int = 0o600) -> None:
            kept[path.rpartition("/")[2]] = content
            await write(self, path, content, mode)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HostFiles, "write", noted)
            await (await it.assign(task, config=config)).settled()
    assert kept["id_rsa"].decode() == written
    assert kept["known_hosts"] == b"x ssh-ed25519 AAAA\n"


@modes
async def test_a_repository_that_cannot_be_read_is_an_error_in_words(tmp_path: Path, sandbox: Mode) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    async with rig(tmp_path / "executor", settings=replace(SETTINGS, sandbox=sandbox)) as it:
        for path in (tmp_path / "loop" / "app", tmp_path / ("x" * 300)):
            done = await it.run(cloning(), environment={"AGOLA_REPOSITORY_URL": str(path)})
            assert done.task.phase is FAILED
            assert f"cannot read the repository {path}: " in await done.log(0), await done.log(0)
            assert "[Errno" not in await done.log(0)


@modes
@pytest.mark.parametrize("bare", [False, True], ids=["work tree", "bare"])
async def test_a_git_directory_around_the_files_of_the_service_is_refused(
    tmp_path: Path, sandbox: Mode, bare: bool
) -> None:
    repository = made(tmp_path / "r", "one")
    if bare:
        git(repository, "clone", "-q", "--bare", ".", str(tmp_path / "bare"))
        repository = tmp_path / "bare"
    data = (repository if bare else repository / ".git") / "executor"
    (tmp_path / "link").symlink_to(repository)
    async with rig(data, settings=replace(SETTINGS, sandbox=sandbox)) as it:
        for url in (str(repository), repository.as_uri(), str(tmp_path / "link")):
            done = await it.run(cloning(), environment={"AGOLA_REPOSITORY_URL": url})
            assert done.task.phase is FAILED, url
            assert "hidden from tasks: it contains, or lies in, files of the service" in await done.log(0), url


@modes
async def test_a_repository_around_the_files_of_the_service_is_cloned(tmp_path: Path, sandbox: Mode) -> None:
    app = made(tmp_path / "app", "a")
    async with rig(app / "executor", settings=replace(SETTINGS, sandbox=sandbox)) as it:
        done = await it.run(cloning(), environment={"AGOLA_REPOSITORY_URL": str(app)})
        assert done.task.phase is SUCCESS, await done.log(0)
