"""Commits of other hosts' repositories are fetched over HTTP, ssh and from allowed folders, within limits."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from runstream.errors import BadRequestError, NotExistError, RunstreamError, UnauthorizedError
from runstream.gateway.authentication import Authenticator
from runstream.gateway.git_http import Access, GitHttp
from runstream.gateway.middleware import RequestMiddleware
from runstream.git.bare import folder_bytes
from runstream.git.command import Git, GitOutput
from runstream.git.mirrors import GitSource, MirrorLimits, Mirrors, is_full_ref
from runstream.git.server import GitServer, GitService, RepositoryName
from runstream.git.sources import AllowedSources
from runstream.telemetry import setup_logging
from runstream.telemetry.http_server import HttpServer
from tests.git.repositories import ENVIRONMENT, commit, git, new_repository

PROJECT = "55555555-5555-4555-8555-555555555555"
NAME = RepositoryName("11111111-1111-4111-8111-111111111111", "33333333-3333-4333-8333-333333333333")
CONFIG = {".runstream/config.yml": "runs: []\n"}
NOW = datetime.now(UTC)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = new_repository(tmp_path / "hosts" / "origin", {"file": "1", **CONFIG}, message="the first")
    git(folder, "tag", "-a", "v1", "-m", "of the tag")
    commit(folder, {"file": "2"}, "the second\n\nwith a body")
    git(folder, "branch", "side", "main^")
    return folder


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    return Mirrors(tmp_path / "mirrors", AllowedSources(folders=(tmp_path / "hosts",)))


async def fetch(mirrors: Mirrors, url: object, ref: str = "refs/heads/main", commit: str = "") -> tuple[str, str]:
    found = await mirrors.fetch(PROJECT, GitSource(str(url)), ref, commit)
    assert found.config is not None
    assert found.config.content == CONFIG[".runstream/config.yml"]
    return found.commit, found.message


async def test_branches_tags_and_commits_are_fetched_with_their_message(mirrors: Mirrors, origin: Path) -> None:
    first, second = git(origin, "rev-parse", "main^"), git(origin, "rev-parse", "main")
    message = "the second\n\nwith a body\n"
    assert await fetch(mirrors, origin) == (second, message)
    assert await fetch(mirrors, origin, "refs/tags/v1") == (first, "the first\n")
    assert await fetch(mirrors, origin, "refs/heads/side", second) == (second, message)
    assert await fetch(mirrors, origin, "refs/heads/main", first[:8].upper()) == (first, "the first\n")
    git(origin, "update-ref", "refs/pull/7/head", first)
    assert await fetch(mirrors, origin, "refs/pull/7/head") == (first, "the first\n")


async def test_a_commit_that_was_read_is_not_fetched_again(
    mirrors: Mirrors, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = git(origin, "rev-parse", "main^"), git(origin, "rev-parse", "main")
    for ref in ("refs/heads/main", "refs/heads/side"):
        await fetch(mirrors, origin, ref)
    commands: list[str] = []
    run = Git.run

    async def noted(self: Git, *arguments: str, **options: Any) -> GitOutput:
        commands.append(arguments[0])
        return await run(self, *arguments, **options)

    monkeypatch.setattr(Git, "run", noted)
    assert await fetch(mirrors, origin) == (second, "the second\n\nwith a body\n")
    assert await fetch(mirrors, origin, "refs/tags/v1") == (first, "the first\n")
    assert await fetch(mirrors, origin, "refs/heads/side", second.upper()) == (second, "the second\n\nwith a body\n")
    assert commands == ["rev-parse"]  # for the tag
    git(origin, "pack-refs", "--all")
    commands.clear()
    assert await fetch(mirrors, origin) == (second, "the second\n\nwith a body\n")
    git(origin, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    assert commands == []
    assert await fetch(mirrors, origin, "refs/heads/alias") == (second, "the second\n\nwith a body\n")
    assert commands == ["rev-parse"]
    bare = origin.parent / "bare.git"
    git(origin.parent, "clone", "-q", "--bare", str(origin), str(bare))
    await fetch(mirrors, bare)
    commands.clear()
    assert await fetch(mirrors, bare) == (second, "the second\n\nwith a body\n")
    assert commands == []
    third = commit(origin, {"file": "3"}, "the third")
    assert await fetch(mirrors, origin) == (third, "the third\n")
    assert "fetch" in commands
    git(origin, "branch", "-D", "side")
    with pytest.raises(RunstreamError) as refused:
        await fetch(mirrors, origin, "refs/heads/side", first)
    assert refused.value.code == "refDoesNotExist"


async def test_what_one_project_has_read_is_not_given_to_another(
    mirrors: Mirrors, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fetch(mirrors, origin)
    commands: list[str] = []
    run = Git.run

    async def noted(self: Git, *arguments: str, **options: Any) -> GitOutput:
        commands.append(arguments[0])
        return await run(self, *arguments, **options)

    monkeypatch.setattr(Git, "run", noted)
    await mirrors.fetch("0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a99", GitSource(str(origin)), "refs/heads/main")
    assert commands[0] == "init"
    assert "fetch" in commands


async def test_a_branch_that_moves_or_is_forced_is_followed(mirrors: Mirrors, origin: Path) -> None:
    await fetch(mirrors, origin)
    third = commit(origin, {"file": "3"}, "the third")
    assert await fetch(mirrors, origin) == (third, "the third\n")
    git(origin, "reset", "-q", "--hard", "main~2")
    other = commit(origin, {"file": "4"}, "another")
    assert await fetch(mirrors, origin) == (other, "another\n")
    git(origin, "branch", "-m", "main", "main/below")
    assert await fetch(mirrors, origin, "refs/heads/main/below") == (other, "another\n")


@pytest.mark.parametrize(
    ("ref", "commit", "code"),
    [
        ("refs/heads/none", "", "refDoesNotExist"),
        ("refs/heads/main", "dead" * 10, "commitDoesNotExist"),
        ("refs/heads/main", "dead", "commitDoesNotExist"),
        ("refs/heads/none", "HEAD", "invalidCommit"),
        ("refs/tags/tree", "", "refDoesNotExist"),
        ("main", "", "invalidRef"),
        ("--upload-pack=touch x", "", "invalidRef"),
        ("refs/heads/a:refs/heads/b", "", "invalidRef"),
        ("refs/heads/*", "", "invalidRef"),
    ],
)
async def test_what_is_not_there_is_said(mirrors: Mirrors, origin: Path, ref: str, commit: str, code: str) -> None:
    git(origin, "tag", "tree", "main^{tree}")
    with pytest.raises(RunstreamError) as refused:
        await mirrors.fetch(PROJECT, GitSource(str(origin)), ref, commit)
    assert refused.value.code == code


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("ab.@{/~^:?*[\\ \x7flock-", max_size=8), max_size=4).map(lambda parts: "refs/" + "/".join(parts))
)
@example("refs/a.lock/b")
@example("refs/a.lock")
@example("refs/.a")
@example("refs/a..b")
@example("refs/a@{b")
@example("refs/a.")
@example("refs/@")
@example("refs//a")
@example("refs/a/")
def test_a_ref_is_what_git_takes_for_one(ref: str) -> None:
    known = subprocess.run(["git", "check-ref-format", ref], env=ENVIRONMENT, check=False).returncode == 0
    assert is_full_ref(ref) is known


async def test_a_url_that_is_not_allowed_is_not_fetched(mirrors: Mirrors, origin: Path, tmp_path: Path) -> None:
    closed = new_repository(tmp_path / "closed", CONFIG)
    for url in (
        closed,
        f"file://{closed}",
        "http://127.0.0.1:1/x",
        f"ext::git upload-pack {origin}",
        f"{origin}/../../closed",
    ):
        with pytest.raises(BadRequestError):
            await fetch(mirrors, url)
    assert [path.name for path in (tmp_path / "mirrors").iterdir()] == ["gitconfig"]


async def test_a_project_has_a_mirror_of_each_url(mirrors: Mirrors, origin: Path, tmp_path: Path) -> None:
    other = new_repository(tmp_path / "hosts" / "other", CONFIG)
    await fetch(mirrors, origin)
    with pytest.raises(NotExistError):
        await fetch(mirrors, other, "refs/heads/main", git(origin, "rev-parse", "main"))
    await fetch(mirrors, other)
    assert len(list((tmp_path / "mirrors").glob("*.git"))) == 2


async def test_a_repository_above_the_limit_is_refused_and_its_mirror_removed(tmp_path: Path, origin: Path) -> None:
    limits = MirrorLimits(mirror_bytes=100_000)
    mirrors = Mirrors(tmp_path / "mirrors", AllowedSources(folders=(tmp_path / "hosts",)), limits)
    await fetch(mirrors, origin)
    (origin / "large").write_bytes(os.urandom(200_000))
    commit(origin, {})
    with pytest.raises(BadRequestError, match="larger than 100,000 bytes") as refused:
        await fetch(mirrors, origin)
    assert refused.value.code == "repositoryTooLarge"
    assert list((tmp_path / "mirrors").glob("*.git")) == []
    git(origin, "rm", "-q", "large")
    commit(origin, {})
    await fetch(mirrors, origin)


async def test_a_mirror_that_has_grown_beyond_the_limit_begins_anew(tmp_path: Path, origin: Path) -> None:
    limits = MirrorLimits(mirror_bytes=100_000)
    mirrors = Mirrors(tmp_path / "mirrors", AllowedSources(folders=(tmp_path / "hosts",)), limits)
    for number in range(4):
        (origin / "noise").write_bytes(os.urandom(40_000))
        made = commit(origin, {}, str(number))
        assert (await fetch(mirrors, origin))[0] == made
        assert await folder_bytes(tmp_path / "mirrors") <= limits.mirror_bytes


async def test_fetches_at_once_all_end_well(mirrors: Mirrors, origin: Path) -> None:
    found = await asyncio.gather(*(fetch(mirrors, origin) for _ in range(4)))
    assert set(found) == {(git(origin, "rev-parse", "main"), "the second\n\nwith a body\n")}


async def test_mirrors_are_removed_by_age_and_size(tmp_path: Path) -> None:
    folders = (tmp_path / "hosts",)
    mirrors = Mirrors(tmp_path / "mirrors", AllowedSources(folders=folders), MirrorLimits(total_bytes=150_000))
    for name in ("a", "b", "c"):
        host = new_repository(tmp_path / "hosts" / name, CONFIG)
        (host / "noise").write_bytes(os.urandom(60_000))
        commit(host, {})
        await fetch(mirrors, host)
    used = sorted((tmp_path / "mirrors").glob("*.git"), key=lambda path: (path / "runstream-used").stat().st_mtime_ns)
    assert await mirrors.clean(NOW) == 1
    assert sorted(path.name for path in (tmp_path / "mirrors").glob("*.git")) == sorted(p.name for p in used[1:])
    assert await mirrors.clean(NOW) == 0
    assert await mirrors.clean(NOW + timedelta(days=31)) == 2


class Host:
    """Another host that serves one repository over HTTP to `me`, with a password."""

    def __init__(self, folder: Path) -> None:
        self.server = GitServer(folder)
        self.asked: list[str] = []
        self.url = ""

    async def authorize(self, request: Request, _name: RepositoryName, _access: Access) -> None:
        given = request.headers.get("authorization", "")
        self.asked.append(given)
        if given != "Basic " + base64.b64encode(b"me:pass word").decode():
            raise UnauthorizedError("who are you?", code="invalidToken")


@pytest.fixture
async def host(tmp_path: Path, origin: Path) -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        setup_logging("error")
        host = Host(tmp_path / "host")
        await host.server.advertise(NAME, GitService.PUSH)
        git(origin, "push", "-q", str(host.server.path(NAME)), "main")

        async def redirect(request: Request) -> Response:
            host.asked.append("redirected")
            return RedirectResponse(f"/repos/{NAME}.git/info/refs?{request.url.query}", 301)

        routes = [
            Route("/repos/moved/info/refs", redirect),
            Mount("/repos", GitHttp(host.server, host.authorize)),
        ]
        app = Starlette(routes=routes)
        app.add_middleware(RequestMiddleware, authenticator=Authenticator("admin"))
        http = HttpServer(app)
        await stack.enter_async_context(http.serving())
        host.url = http.url
        yield host


LOOPBACK = AllowedSources(frozenset({"http"}), networks=(ip_network("127.0.0.0/8"),))


async def test_a_password_is_for_its_host(tmp_path: Path, host: Host, origin: Path) -> None:
    mirrors = Mirrors(tmp_path / "mirrors", LOOPBACK)
    source = GitSource(f"{host.url}/repos/{NAME}.git", "me", "pass word")
    assert (await mirrors.fetch(PROJECT, source, "refs/heads/main")).commit == git(origin, "rev-parse", "main")
    with pytest.raises(BadRequestError, match="git cannot fetch from http") as refused:
        await mirrors.fetch(PROJECT, replace(source, password="wrong words"), "refs/heads/main")
    assert refused.value.code == "fetchFailed"
    assert "wrong words" not in f"{refused.value}{refused.value.hint}{refused.value.__cause__}"
    files = [path for path in (tmp_path / "mirrors").rglob("*") if path.is_file()]
    assert not any(b"pass word" in path.read_bytes() for path in files)


async def test_a_host_is_asked_where_a_ref_leads_and_a_commit_that_was_read_is_not_fetched_again(
    tmp_path: Path, host: Host, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = Mirrors(tmp_path / "mirrors", LOOPBACK)
    source = GitSource(f"{host.url}/repos/{NAME}.git", "me", "pass word")
    first = await mirrors.fetch(PROJECT, source, "refs/heads/main")
    commands: list[str] = []
    run = Git.run

    async def noted(self: Git, *arguments: str, **options: Any) -> GitOutput:
        commands.append(arguments[0])
        return await run(self, *arguments, **options)

    monkeypatch.setattr(Git, "run", noted)
    host.asked.clear()
    assert await mirrors.fetch(PROJECT, source, "refs/heads/main") == first
    assert "ls-remote" in commands
    assert "fetch" not in commands
    assert host.asked
    with pytest.raises(BadRequestError):
        await mirrors.fetch(PROJECT, replace(source, password="wrong"), "refs/heads/main")
    with pytest.raises(NotExistError):
        await mirrors.fetch(PROJECT, source, "refs/heads/none")


async def test_git_connects_to_the_address_that_was_checked(tmp_path: Path, host: Host, origin: Path) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    mirrors = Mirrors(tmp_path / "mirrors", LOOPBACK, resolve=resolve)
    url = host.url.replace("127.0.0.1", "git.invalid")
    source = GitSource(f"{url}/repos/{NAME}.git", "me", "pass word")
    assert (await mirrors.fetch(PROJECT, source, "refs/heads/main")).commit == git(origin, "rev-parse", "main")


async def test_a_redirect_is_not_followed(tmp_path: Path, host: Host) -> None:
    mirrors = Mirrors(tmp_path / "mirrors", LOOPBACK)
    with pytest.raises(BadRequestError, match="git cannot fetch"):
        await mirrors.fetch(PROJECT, GitSource(f"{host.url}/repos/moved", "me", "pass word"), "refs/heads/main")
    assert host.asked == ["redirected"]


async def test_a_host_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await closed.wait()
        writer.close()

    connected, closed = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    mirrors = Mirrors(tmp_path / "mirrors", LOOPBACK, MirrorLimits(seconds=1))
    try:
        with pytest.raises(BadRequestError) as refused:
            await mirrors.fetch(PROJECT, GitSource(f"http://127.0.0.1:{port}/x"), "refs/heads/main")
        assert refused.value.code == "gitTimeout"
        assert connected.is_set()
    finally:
        closed.set()
        server.close()
        await server.wait_closed()


async def _public(_host: str, _port: int) -> list[str]:
    return ["203.0.114.7"]


def fake_ssh(folder: Path, monkeypatch: pytest.MonkeyPatch, *commands: str) -> None:
    """Put a program `ssh` before the others that runs these commands."""
    folder.mkdir()
    (folder / "ssh").write_text("\n".join(("#!/bin/sh", *commands, "")))
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


async def test_ssh_gets_the_key_the_known_hosts_and_the_address(
    tmp_path: Path, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    fake_ssh(
        tmp_path / "programs",
        monkeypatch,
        f'cat "$2" "$(dirname "$2")/key" "$(dirname "$2")/known_hosts" >{told}',
        f'printf "%s\\n" "$@" >>{told}',
        f"exec git upload-pack {origin}",
    )
    mirrors = Mirrors(tmp_path / "mirrors", AllowedSources(), resolve=_public)
    source = GitSource("git@git.example:team/app.git", private_key="KEY\r\nEND", known_hosts="git.example ssh-rsa AA")
    assert (await mirrors.fetch(PROJECT, source, "refs/heads/main")).commit == git(origin, "rev-parse", "main")
    read = told.read_text()
    for line in (
        "HostName 203.0.114.7",
        "HostKeyAlias git.example",
        "StrictHostKeyChecking yes",
        "KEY\nEND\n",
        "git.example ssh-rsa AA\n",
        "git-upload-pack 'team/app.git'",
    ):
        assert line in read
    files = [path for path in (tmp_path / "mirrors").rglob("*") if path.is_file()]
    assert not any(b"KEY" in path.read_bytes() for path in files)


async def test_a_commit_that_its_host_does_not_give_alone_is_found_in_the_history(
    tmp_path: Path, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = git(origin, "rev-parse", "main^")
    git(origin, "branch", "-D", "side")
    git(origin, "tag", "-d", "v1")
    fake_ssh(tmp_path / "programs", monkeypatch, f'exec env -i PATH="$PATH" HOME=/ git upload-pack {origin}')
    mirrors = Mirrors(tmp_path / "mirrors", AllowedSources(), resolve=_public)
    source = GitSource("git@git.example:team/app.git")
    found = await mirrors.fetch(PROJECT, source, "refs/heads/main", first)
    assert (found.commit, found.message) == (first, "the first\n")
    with pytest.raises(NotExistError, match="has no commit dead"):
        await mirrors.fetch(PROJECT, source, "refs/heads/main", "dead" * 10)
