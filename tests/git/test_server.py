"""The git server of the gateway, used by the real git client over HTTP."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import gzip
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import psutil
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from runstream.errors import BadRequestError, InternalError, NotExistError, UnauthorizedError
from runstream.gateway.authentication import Authenticator
from runstream.gateway.git_http import Access, GitHttp, body_of
from runstream.gateway.middleware import RequestMiddleware
from runstream.git.bare import BareRepositories
from runstream.git.save import push_saved, save_working_tree
from runstream.git.server import CleanedRepositories, GitServer, GitServerLimits, GitService, RepositoryName
from runstream.telemetry import setup_logging
from runstream.telemetry.http_server import HttpServer
from tests.git.repositories import ENVIRONMENT, commit, git, git_process, new_repository

OWNER, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
CLONE = "33333333-3333-4333-8333-333333333333"
NAME = RepositoryName(OWNER, CLONE)
LIMITS = GitServerLimits(push_bytes=300_000, repository_bytes=2_000_000, request_bytes=50_000, lock_seconds=0.2)


@dataclass
class Service:
    """A server over HTTP; the user name of a request is the id of its user."""

    server: GitServer
    root: Path
    url: str = ""
    asked: list[tuple[str, str, Access]] = field(default_factory=list)

    async def authorize(self, request: Request, name: RepositoryName, access: Access) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            raise UnauthorizedError("who are you?", code="missingToken")
        user = base64.b64decode(given).decode().partition(":")[0]
        self.asked.append((user, str(name), access))
        if user != name.user_id:
            raise NotExistError(f"there is no repository {name}", code="repositoryDoesNotExist", hint="look elsewhere")

    def repository(self, user: str = OWNER, path: str = f"{OWNER}/{CLONE}") -> str:
        return f"{self.url.replace('://', f'://{user}:x@')}/repos/{path}.git"


@asynccontextmanager
async def served(server: GitServer, root: Path) -> AsyncIterator[Service]:
    """Serve the repositories over HTTP."""
    setup_logging("error")
    service = Service(server, root)
    app = Starlette(routes=[Mount("/repos", GitHttp(service.server, service.authorize))])
    app.add_middleware(RequestMiddleware, authenticator=Authenticator("admin"))
    http = HttpServer(app)
    async with http.serving():
        service.url = http.url
        yield service


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with served(GitServer(tmp_path / "served", LIMITS), tmp_path / "served") as service:
        yield service


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "clone", {"file": "one", "sub/run.sh": "#!/bin/sh\n"})


async def run(folder: Path, *arguments: str) -> str:
    return await asyncio.to_thread(git, folder, *arguments)


async def refused(folder: Path, *arguments: str) -> str:
    done = await asyncio.to_thread(git_process, folder, *arguments)
    assert done.returncode != 0
    return done.stderr.decode()


@pytest.mark.parametrize("version", ["0", "1", "2"])
async def test_what_is_pushed_can_be_cloned(service: Service, clone: Path, tmp_path: Path, version: str) -> None:
    protocol = ("-c", f"protocol.version={version}")
    await run(clone, *protocol, "push", service.repository(), "main:refs/heads/a/b", "main:refs/tags/v1")
    await run(tmp_path, *protocol, "clone", "-q", "--depth=1", "-b", "a/b", service.repository(), "copy")
    assert (tmp_path / "copy" / "sub" / "run.sh").read_text() == "#!/bin/sh\n"
    listed = await run(clone, *protocol, "ls-remote", service.repository())
    assert [line.split("\t")[1] for line in listed.splitlines()] == ["refs/heads/a/b", "refs/tags/v1"]
    assert {access for _, _, access in service.asked} == {"push", "read"}


async def test_a_replaced_commit_can_still_be_fetched(service: Service, clone: Path, tmp_path: Path) -> None:
    await run(clone, "push", service.repository(), "main")
    first = await run(clone, "rev-parse", "main")
    await run(clone, "commit", "-q", "--amend", "-m", "again")
    await run(clone, "push", "--force", service.repository(), "main")
    new_repository(tmp_path / "other")
    for version in ("0", "2"):
        protocol = ("-c", f"protocol.version={version}")
        await run(tmp_path / "other", *protocol, "fetch", "--depth=1", service.repository(), first)


async def test_a_saved_working_tree_is_pushed_and_a_task_clones_it(
    service: Service, clone: Path, tmp_path: Path
) -> None:
    (clone / "file").write_text("dirty")
    saved = await asyncio.to_thread(save_working_tree, clone)
    url = f"{service.url}/repos/{NAME}.git"
    for _ in range(2):
        await asyncio.to_thread(push_saved, saved, url, "refs/heads/main", username=OWNER, password="a token")
    await run(tmp_path, "clone", "-q", "-b", "main", service.repository(), "copy")
    assert (tmp_path / "copy" / "file").read_text() == "dirty"
    with pytest.raises(BadRequestError, match=f"git cannot push to {url}: .*look elsewhere"):
        await asyncio.to_thread(push_saved, saved, url, "refs/heads/main", username=OTHER, password="a token")


async def test_the_configuration_of_a_pushed_commit_is_read(tmp_path: Path, clone: Path) -> None:
    server = GitServer(tmp_path / "served")
    head = commit(clone, {".runstream/config.yml": "runs: []\n"})
    with pytest.raises(NotExistError, match="there is no repository"):
        await server.config(NAME, head)
    await server.advertise(NAME, GitService.PUSH)
    git(clone, "push", "-q", str(server.path(NAME)), "main")
    found = await server.config(NAME, head)
    assert found is not None
    assert (found.path, found.content) == (".runstream/config.yml", "runs: []\n")
    for other in ("dead" * 10, head[:8], "main", "HEAD", "--help", git(clone, "rev-parse", "HEAD^{tree}")):
        with pytest.raises(NotExistError, match="has no commit"):
            await server.config(NAME, other)


async def test_a_request_without_a_user_is_asked_for_one(service: Service, clone: Path) -> None:
    url = f"{service.url}/repos/{NAME}.git"
    assert "could not read Username" in await refused(clone, "push", url, "main")
    assert service.asked == []
    assert not service.root.joinpath(OWNER).exists()


async def test_another_users_repository_is_neither_read_nor_made(service: Service, clone: Path) -> None:
    await run(clone, "push", service.repository(), "main")
    for command in (("push", service.repository(OTHER), "main:refs/heads/x"), ("fetch", service.repository(OTHER))):
        message = await refused(clone, *command)
        assert f"there is no repository {NAME}" in message
        assert "look elsewhere" in message
    assert "x" not in await run(clone, "ls-remote", "--heads", service.repository())
    await refused(clone, "push", service.repository(OTHER, f"{OWNER}/{OTHER}"), "main")
    assert [path.name for path in service.root.joinpath(OWNER).iterdir()] == [f"{CLONE}.git"]


async def test_a_fetch_creates_no_repository(service: Service, clone: Path) -> None:
    assert "there is no repository" in await refused(clone, "fetch", service.repository())
    assert not service.root.joinpath(OWNER).exists()


@pytest.mark.parametrize(
    "path",
    [
        f"{OWNER}/%2e%2e/{OWNER}/{CLONE}",
        f"{OWNER}/..%2f..%2fetc",
        "..%2f..",
        f"{OWNER}/--upload-pack=touch",
        f"--exec=x/{CLONE}",
        f"{OWNER}/{CLONE}.git/x",
        f"{OWNER}",
        f"{OWNER}/{CLONE.replace('3', 'A')}",
        f"{OWNER}/{CLONE}%0a",
    ],
)
async def test_a_path_that_is_not_a_users_repository_is_not_found(service: Service, path: str) -> None:
    async with httpx2.AsyncClient(auth=(OWNER, "x")) as client:
        for service_name in GitService:
            url = f"{service.url}/repos/{path}.git/info/refs?service={service_name}"
            assert (await client.get(url)).status_code == 404
            assert (await client.post(f"{service.url}/repos/{path}.git/{service_name}")).status_code == 404
    assert [one.name for one in service.root.iterdir()] == ["gitconfig"]
    assert service.asked == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "info/refs", 400),
        ("GET", "info/refs?service=git-upload-archive", 400),
        ("GET", "info/refs?service=--help", 400),
        ("GET", "info/refs?service=git-upload-pack&service=git-receive-pack", 400),
        ("POST", "info/refs?service=git-upload-pack", 405),
        ("GET", "git-upload-pack", 405),
        ("GET", "HEAD", 404),
        ("GET", "objects/info/packs", 404),
        ("POST", "git-upload-archive", 404),
        ("GET", "config", 404),
    ],
)
async def test_other_requests_than_those_of_the_smart_protocol_are_refused(
    service: Service, clone: Path, method: str, path: str, status: int
) -> None:
    async with httpx2.AsyncClient(auth=(OWNER, "x")) as client:
        answer = await client.request(method, f"{service.url}/repos/{NAME}.git/{path}")
    assert answer.status_code == status, answer.text


def post(client: httpx2.AsyncClient, service: Service, kind: GitService, body: bytes, **headers: str):  # type: ignore[no-untyped-def]
    given = {"content-type": f"application/x-{kind}-request", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return client.post(f"{service.url}/repos/{NAME}.git/{kind}", content=body, headers=given)


async def test_bodies_are_inflated_up_to_the_limit(service: Service, clone: Path) -> None:
    await run(clone, "push", service.repository(), "main")
    head = await run(clone, "rev-parse", "main")
    want = f"0032want {head}\n00000009done\n".encode()
    async with httpx2.AsyncClient(auth=(OWNER, "x")) as client:
        for encoding in ("gzip", "x-gzip"):
            answer = await post(client, service, GitService.FETCH, gzip.compress(want), content_encoding=encoding)
            assert answer.status_code == 200
            assert answer.content.startswith(b"0008NAK\nPACK")
        bombs = {
            GitService.FETCH: gzip.compress(bytes(LIMITS.request_bytes + 1)),
            GitService.PUSH: gzip.compress(bytes(50 << 20)),
        }
        for kind, bomb in bombs.items():
            assert (await post(client, service, kind, bomb, content_encoding="gzip")).status_code == 413
        for broken in (b"no gzip", gzip.compress(want)[:-9], gzip.compress(want) + b"more"):
            answer = await post(client, service, GitService.FETCH, broken, content_encoding="gzip")
            assert (answer.status_code, answer.json()[0]["code"]) == (400, "malformedBody")
        assert (await post(client, service, GitService.FETCH, want, content_encoding="br")).status_code == 415
        assert (await post(client, service, GitService.FETCH, want, content_type="text/plain")).status_code == 415
        answer = await post(client, service, GitService.FETCH, b"0032want " + b"0" * 40 + b"\n00000009done\n")
        assert answer.status_code == 200
        assert b"ERR upload-pack: not our ref" in answer.content


async def test_inflating_takes_no_more_memory_than_a_part() -> None:
    headers = [(b"content-type", b"application/x-git-receive-pack-request"), (b"content-encoding", b"gzip")]
    whole = gzip.compress(bytes(3_000_000) + b"end")

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": whole, "more_body": False}

    request = Request({"type": "http", "headers": headers}, receive)
    parts = [part async for part in body_of(request, GitService.PUSH, 4_000_000)]
    assert max(map(len, parts)) <= 65536
    assert b"".join(parts) == bytes(3_000_000) + b"end"


async def test_a_bomb_is_inflated_no_further_than_its_size_explains() -> None:
    headers = [(b"content-type", b"application/x-git-receive-pack-request"), (b"content-encoding", b"gzip")]
    size, bomb = 64 << 20, gzip.compress(bytes(64 << 20))

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": bomb, "more_body": False}

    parts: list[int] = []

    async def read() -> None:
        async for part in body_of(Request({"type": "http", "headers": headers}, receive), GitService.PUSH, 2 * size):
            parts.append(len(part))  # noqa: PERF401  what was read before the refusal counts

    with pytest.raises(BadRequestError) as refused:
        await read()
    assert refused.value.code == "bodyTooLarge"
    assert sum(parts) <= 20 * len(bomb) + (4 << 20) < size / 8


async def test_a_push_of_2_gib_is_refused_before_its_body_is_sent(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2]))
    login = base64.b64encode(f"{OWNER}:x".encode()).decode()
    lines = (
        f"POST /repos/{NAME}.git/git-receive-pack HTTP/1.1",
        "Host: x",
        f"Authorization: Basic {login}",
        "Content-Type: application/x-git-receive-pack-request",
        f"Content-Length: {2 << 30}",
    )
    writer.write("\r\n".join([*lines, "", ""]).encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()
    await writer.wait_closed()


def noise(path: Path, size: int) -> None:
    path.write_bytes(os.urandom(size))


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_push_above_the_limit_leaves_nothing(service: Service, clone: Path, chunked: bool) -> None:
    noise(clone / "large", LIMITS.push_bytes + 1)
    commit(clone, {})
    buffer = ("-c", "http.postBuffer=65536") if chunked else ()
    message = await refused(clone, *buffer, "push", service.repository(), "main")
    assert "413" in message or "RPC failed" in message
    assert await run(clone, "ls-remote", service.repository()) == ""
    assert objects_of(service) == []


def objects_of(service: Service) -> list[Path]:
    folder = service.server.path(NAME) / "objects"
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_working_tree_that_is_too_large_is_said_to_be(service: Service, clone: Path) -> None:
    noise(clone / "large", LIMITS.push_bytes + 1)
    saved = await asyncio.to_thread(save_working_tree, clone)
    url = f"{service.url}/repos/{NAME}.git"
    with pytest.raises(BadRequestError, match=f"the files of {clone} are more than ") as refused_push:
        await asyncio.to_thread(push_saved, saved, url, "refs/heads/main", username=OWNER, password="a token")
    assert refused_push.value.code == "pushTooLarge"


async def test_a_full_repository_takes_no_push(service: Service, clone: Path) -> None:
    await run(clone, "push", service.repository(), "main")
    noise(service.server.path(NAME) / "objects" / "pack" / "ballast", LIMITS.repository_bytes)
    commit(clone, {"file": "two"})
    assert "413" in await refused(clone, "push", service.repository(), "main")


async def test_a_push_that_does_not_fit_any_more_is_refused(service: Service, clone: Path) -> None:
    await run(clone, "push", service.repository(), "main")
    noise(service.server.path(NAME) / "objects" / "pack" / "ballast", LIMITS.repository_bytes - 100_000)
    noise(clone / "large", 150_000)
    commit(clone, {})
    assert "unpack" in await refused(clone, "push", service.repository(), "main")


async def test_a_user_has_a_limited_number_of_repositories(tmp_path: Path) -> None:
    server = GitServer(tmp_path, GitServerLimits(repositories=1))
    await server.advertise(NAME, GitService.PUSH)
    await server.advertise(NAME, GitService.PUSH)
    with pytest.raises(Exception, match="the user has 1 repositories"):
        await server.advertise(RepositoryName(OWNER, OTHER), GitService.PUSH)
    await server.advertise(RepositoryName(OTHER, CLONE), GitService.PUSH)


def flipped(pack: bytes) -> bytes:
    return pack[:30] + bytes([pack[30] ^ 255]) + pack[31:]


@pytest.mark.parametrize("damage", [flipped, lambda pack: pack[:-10], lambda pack: b"PACK", lambda pack: b"junk" * 20])
async def test_a_corrupt_pack_is_refused_and_leaves_nothing(
    service: Service, clone: Path, damage: Callable[[bytes], bytes]
) -> None:
    head = await run(clone, "rev-parse", "main")
    packed = await asyncio.to_thread(packed_objects, clone, head)
    line = f"{'0' * 40} {head} refs/heads/main\0report-status".encode()
    body = f"{len(line) + 4:04x}".encode() + line + b"0000"
    async with httpx2.AsyncClient(auth=(OWNER, "x")) as client:
        answer = await post(client, service, GitService.PUSH, body + damage(packed))
        assert answer.status_code == 200
        assert b"unpack ok" not in answer.content
        assert objects_of(service) == []
        answer = await post(client, service, GitService.PUSH, body + packed)
        assert b"unpack ok" in answer.content
        assert b"ok refs/heads/main" in answer.content


def packed_objects(clone: Path, head: str) -> bytes:
    command = ["git", "pack-objects", "--revs", "--stdout", "-q"]
    return subprocess.run(
        command, input=head.encode(), check=True, capture_output=True, cwd=clone, env=ENVIRONMENT
    ).stdout


async def test_objects_that_git_fsck_refuses_are_refused(service: Service, clone: Path) -> None:
    bad = "tree {tree}\nauthor me <me@example.com> 0 +0000\ncommitter nobody\n\nbad\n"
    (clone / "bad").write_text(bad.format(tree=await run(clone, "rev-parse", "main^{tree}")))
    bad_commit = await run(clone, "hash-object", "-t", "commit", "-w", "--literally", "bad")
    message = await refused(clone, "push", service.repository(), f"{bad_commit}:refs/heads/bad")
    assert "fsck" in message or "missingEmail" in message
    assert objects_of(service) == []


async def test_a_second_push_waits_for_the_first_and_then_is_refused(service: Service, clone: Path) -> None:
    await run(clone, "push", service.repository(), "main")
    commit(clone, {"file": "two"})
    repositories = BareRepositories(service.root, service.server.git)
    async with repositories.exclusive(str(NAME), 1):
        assert "503" in await refused(clone, "push", service.repository(), "main")
        async with httpx2.AsyncClient(auth=(OWNER, "x")) as client:
            answer = await post(client, service, GitService.PUSH, b"0000")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    await run(clone, "push", service.repository(), "main")


async def test_pushes_at_once_are_all_taken(tmp_path: Path, clone: Path) -> None:
    server = GitServer(tmp_path / "served", GitServerLimits())
    head = await run(clone, "rev-parse", "main")
    packed = await asyncio.to_thread(packed_objects, clone, head)

    async def push(number: int) -> bytes:
        line = f"{'0' * 40} {head} refs/heads/{number}\0report-status".encode()

        async def body() -> AsyncIterator[bytes]:
            yield f"{len(line) + 4:04x}".encode() + line + b"0000"
            yield packed

        return await server.push(NAME, body())

    reports = await asyncio.gather(*map(push, range(4)))
    assert all(b"unpack ok" in report for report in reports)
    assert len(git(server.path(NAME), "for-each-ref").splitlines()) == 4


async def test_a_push_whose_client_leaves_changes_nothing(tmp_path: Path, clone: Path) -> None:
    server = GitServer(tmp_path / "served", GitServerLimits())
    head = await run(clone, "rev-parse", "main")
    packed = await asyncio.to_thread(packed_objects, clone, head)
    line = f"{'0' * 40} {head} refs/heads/main\0report-status".encode()
    reached = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield f"{len(line) + 4:04x}".encode() + line + b"0000" + packed[:-40]
        reached.set()
        await asyncio.Event().wait()

    pushing = asyncio.create_task(server.push(NAME, body()))
    await reached.wait()
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    assert [path for path in (server.path(NAME) / "objects").rglob("*") if path.is_file()] == []
    assert git(server.path(NAME), "for-each-ref") == ""


async def test_a_git_that_is_killed_leaves_nothing_of_a_push(tmp_path: Path, clone: Path) -> None:
    server = GitServer(tmp_path / "served", GitServerLimits())
    head = await run(clone, "rev-parse", "main")
    packed = await asyncio.to_thread(packed_objects, clone, head)
    line = f"{'0' * 40} {head} refs/heads/main\0report-status".encode()
    # Among them can be the servers that all tests share.
    others = set(psutil.Process().children(recursive=True))

    async def body() -> AsyncIterator[bytes]:
        yield f"{len(line) + 4:04x}".encode() + line + b"0000" + packed[:-40]
        gits: list[psutil.Process] = []
        while not [process for process in gits if "index-pack" in process.cmdline()]:
            await asyncio.sleep(0)
            gits = [one for one in psutil.Process().children(recursive=True) if one not in others]
        for process in gits:  # parents first: none of them can answer that its child has ended
            process.kill()
        yield packed[-40:]

    with pytest.raises(BadRequestError, match="git cannot take a push"):
        await server.push(NAME, body())
    assert [path for path in (server.path(NAME) / "objects").rglob("*") if path.name != "pack"] == [
        server.path(NAME) / "objects" / "info"
    ]


@pytest.mark.parametrize("made_again", [True, False])
async def test_the_lock_of_a_removed_repository_is_worth_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_again: bool
) -> None:
    repositories = BareRepositories(tmp_path, GitServer(tmp_path).git)
    await repositories.create("a")
    path, lock = repositories.path("a"), fcntl.flock

    def removed_before(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        path.rename(tmp_path / "gone")
        if made_again:
            path.mkdir()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    if not made_again:
        with pytest.raises(NotExistError):
            await repositories.exclusive("a", 1).__aenter__()
        return
    async with repositories.exclusive("a", 1):
        with pytest.raises(InternalError, match="another command"):
            await repositories.exclusive("a", 0.001).__aenter__()


async def test_hooks_are_not_run(service: Service, clone: Path) -> None:
    await run(clone, "push", service.repository(), "main")
    hooks = service.server.path(NAME) / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-receive", "update", "post-receive", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {hooks}/ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    commit(clone, {"file": "two"})
    await run(clone, "push", service.repository(), "main")
    assert not (hooks / "ran").exists()


NOW = datetime.now(UTC)


async def pushed(server: GitServer, clone: Path, ref: str, date: datetime) -> None:
    """Push a commit of this date to a ref, as a client with the repository's path would."""
    when = f"@{int(date.timestamp())} +0000"
    made = git(clone, "commit-tree", "-m", ref, "main^{tree}", GIT_COMMITTER_DATE=when, GIT_AUTHOR_DATE=when)
    git(clone, "push", "-q", str(server.path(NAME)), f"+{made}:{ref}")


async def test_refs_and_repositories_expire(tmp_path: Path, clone: Path) -> None:
    server = GitServer(tmp_path / "served")
    await server.advertise(NAME, GitService.PUSH)
    expiry = timedelta(days=30)
    await pushed(server, clone, "refs/heads/old", NOW - timedelta(days=31))
    await pushed(server, clone, "refs/pull/1/head", NOW - timedelta(days=31))
    await pushed(server, clone, "refs/heads/new", NOW - timedelta(days=29))
    await pushed(server, clone, "refs/heads/of-the-future", NOW + timedelta(days=5000))
    git(clone, "push", "-q", str(server.path(NAME)), "main^{tree}:refs/tags/tree")
    assert await server.clean(NOW, expiry) == CleanedRepositories(2, 0)
    left = git(server.path(NAME), "for-each-ref", "--format=%(refname)").splitlines()
    assert left == ["refs/heads/new", "refs/heads/of-the-future", "refs/tags/tree"]
    assert await server.clean(NOW, expiry) == CleanedRepositories()
    assert await server.clean(NOW + timedelta(days=40), expiry) == CleanedRepositories(0, 1)
    assert not (tmp_path / "served" / OWNER).exists()


async def test_a_repository_in_use_or_damaged_is_cleaned_another_time(tmp_path: Path, clone: Path) -> None:
    server = GitServer(tmp_path / "served")
    repositories = BareRepositories(tmp_path / "served", server.git)
    for owner in (OWNER, OTHER):
        await server.advertise(RepositoryName(owner, CLONE), GitService.PUSH)
    damaged = server.path(NAME)
    (damaged / "HEAD").unlink()
    assert await server.clean(NOW, timedelta(days=30)) == CleanedRepositories()
    later = NOW + timedelta(days=31)
    async with repositories.exclusive(f"{OTHER}/{CLONE}", 1):
        assert await server.clean(later, timedelta(days=30)) == CleanedRepositories(0, 1)
    assert repositories.names() == [f"{OTHER}/{CLONE}"]
    assert await server.clean(later, timedelta(days=30)) == CleanedRepositories(0, 1)


async def test_a_replaced_commit_stays_until_it_expires(tmp_path: Path, clone: Path) -> None:
    server = GitServer(tmp_path / "served")
    await server.advertise(NAME, GitService.PUSH)
    commits = []
    for message in ("one", "two"):
        made = git(clone, "commit-tree", "-m", message, "main^{tree}")
        git(clone, "push", "-q", "--force", str(server.path(NAME)), f"{made}:refs/heads/main")
        commits.append(made)
    await server.clean(NOW, timedelta(days=30))
    for made in commits:
        git(server.path(NAME), "cat-file", "-e", made)
    os.utime(server.path(NAME) / "runstream-used", times=((NOW + timedelta(days=39)).timestamp(),) * 2)
    await pushed(server, clone, "refs/heads/main", NOW + timedelta(days=38))
    await server.clean(NOW + timedelta(days=40), timedelta(days=30))
    git(server.path(NAME), "cat-file", "-e", "refs/heads/main")
    assert git_process(server.path(NAME), "cat-file", "-e", commits[0]).returncode != 0


async def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    server = GitServer(tmp_path)
    left = [tmp_path / ".new-a", tmp_path / ".gone-b"]
    for path in left:
        (path / "objects").mkdir(parents=True)
    await server.clean(NOW + timedelta(minutes=30), timedelta(days=30))
    assert all(path.exists() for path in left)
    await server.clean(NOW + timedelta(hours=2), timedelta(days=30))
    assert not any(path.exists() for path in left)
