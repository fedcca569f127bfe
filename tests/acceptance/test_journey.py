"""People, an organization, a project, runs with a secret and a cache; then everything is moved to another deployment.

At the end, no secret, key, password, token, session or link is in plain text in anything that was left behind.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx2
import pytest

from runstream.client import (
    Client,
    CommitChoice,
    NewDirectRun,
    NewProject,
    NewRepository,
    NewVariableValue,
    ProjectChanges,
)
from runstream.client.owned_runs import OwnedRuns
from runstream.git.save import push_saved, save_working_tree
from tests.acceptance.deployment import TOKEN, Deployment, servers
from tests.git.repositories import git, new_repository
from tests.leftovers import ZSTD, contents, messages, processes, rows

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SECRET, PASSWORD = "sw0rdfish-4711-secret", "p4ssw0rd-of-the-repository"
PRIVATE = "bGlrZS1hLXByaXZhdGUta2V5LW9mLXRoZS1yZXBvc2l0b3J5"
KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{PRIVATE}\n-----END OPENSSH PRIVATE KEY-----\n"
RUN_TOKEN = r"rsr_[0-9A-Za-z]{8}"
"""The token with which a task of a direct run clones."""
CONFIG = """
runs:
  - name: main
    tasks:
      - name: build
        runtime: {type: host}
        environment: {PASSWORD: {from_variable: password}}
        steps:
          - clone:
          - restore_cache: {keys: [packages], dest_dir: packages}
          - run: 'test -e packages/x && echo "cache: hit" || echo "cache: miss"; mkdir -p packages; touch packages/x'
          - save_cache: {key: packages, contents: [{source_dir: packages, paths: ["**"]}]}
          - run: 'echo "<$PASSWORD> $(cat file)"'
"""
CACHE, SHOWN = 2, 4
"""Numbers of the steps that say whether the cache was there, and what the task knows."""
NOT_OF_THE_LOGS = {
    "/auth/session": "of a browser; sessions are not exported",
    "/auth/sessions": "sessions are not exported",
    "/caches": "caches are not exported",
    "/events": "a stream without an end",
    "/executors": "leases of this deployment",
    "/runs/events": "a stream without an end",
    "/runs/{run_id}/history": "a stream of positions, which are of an epoch",
    "/audit": "positions are of an epoch",
    "/version": "it names the epoch",
}
"""GET routes whose responses are not made of the exported logs alone."""
OPERATIONS = ("/maintenance", "/export", "/import", "/epochs", "/storage", "/parked", "/health", "/fsck")
"""Beginnings of routes about the deployment itself. Name a new one here, or its parameters in the test."""


async def ended(deployment: Deployment, runs: OwnedRuns, owner: str, root: str, number: int) -> None:
    """Wait until a run of a project or user has succeeded."""
    await runs.get(owner, number)  # these routes know what was created a moment ago; the lists follow
    done = await deployment.run("run", "follow", f"{root}/{number}")
    assert done.code == 0, done


async def said(client: Client, owner: str, number: int, step: int, *, direct: bool = False) -> str:
    runs = client.user_runs if direct else client.project_runs
    (task,) = (await runs.get(owner, number)).tasks.values()
    return b"".join([chunk async for chunk in runs.log(owner, number, task.id, step)]).decode()


async def direct_run(deployment: Deployment, ann: Client, user: str, token: str, clone: Path, number: int) -> None:
    """Push the working tree of a clone, and create its runs; wait until they have ended."""
    saved = await asyncio.to_thread(save_working_tree, clone)
    path = f"{user}/{saved.clone_id}"
    at = f"{deployment.gateway.url}/repos/{path}.git"
    await asyncio.to_thread(push_saved, saved, at, "refs/heads/main", username="ann", password=token)
    new = NewDirectRun(
        repo_uuid=saved.clone_id, repo_path=path, branch="main", commit_sha=saved.commit, message=saved.message
    )
    await ann.users.create_direct_runs(new)
    await ended(deployment, ann.user_runs, "ann", f"/user/{user}", number)


async def session(deployment: Deployment, admin: Client) -> dict[str, str]:
    """Log Ann in by a link; return what must be nowhere afterwards: the link's secret and the cookies."""
    link = unquote(urlsplit((await admin.users.login_link("ann")).url).fragment)
    async with httpx2.AsyncClient(base_url=f"{deployment.gateway.url}/api/v1alpha") as browser:
        answer = await browser.post("/auth/session", json={"token": link})
        assert answer.status_code == 201, answer.text
        cookies = dict(re.findall(r"([\w-]+)=([^;]+)", "\n".join(answer.headers.get_list("set-cookie"))))
        found = {name: value for name, value in cookies.items() if len(value) > 15}
        assert len(found) >= 2, cookies
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in found.items())}
        assert (await browser.get("/user", headers=sent)).json()["username"] == "ann"
    return {"login link": link, **{f"cookie {name}": value for name, value in found.items()}}


async def every_answer(
    deployment: Deployment, tokens: dict[str, str], names: dict[str, tuple[str, ...]]
) -> dict[str, Any]:
    """The response to each GET route about each thing, as each sender sees it."""
    found: dict[str, Any] = {}
    async with httpx2.AsyncClient(base_url=deployment.gateway.url, timeout=30) as http:
        described = await http.get("/api/v1alpha/openapi.json", headers={"Authorization": f"token {TOKEN}"})
        wanted = [
            path
            for path, methods in described.json()["paths"].items()
            if "get" in methods
            and path.removeprefix("/api/v1alpha") not in NOT_OF_THE_LOGS
            and not path.removeprefix("/api/v1alpha").startswith(OPERATIONS)
        ]
        assert len(wanted) > 30
        for path in wanted:
            for url in _filled(path, names):
                for who, token in tokens.items():
                    answer = await http.get(url, headers={"Authorization": f"token {token}"} if token else {})
                    found[f"{who} {url}"] = answer.status_code, answer.text
    return found


def _filled(path: str, names: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Fill in the first parameter of a route with each name, and so on."""
    match = re.search(r"\{(\w+)\}", path)
    if match is None:
        queries = {"/logs": "&setup=1", "/logs/lines": "&setup=1", "/logs/search": "&step=4&q=committed"}
        query = queries.get(path.removeprefix("/api/v1alpha"))
        if query is None:
            yield path
        for run, task in zip(names["run_id"], names["task"], strict=False) if query else ():
            yield f"{path}?runid={run}&taskid={task}{query}"
        return
    kind = next((kind for part, kind in PARAMETERS if part in path and match[1] in ("ref", "task")), match[1])
    for name in names[kind]:
        filled = path.replace(match[0], quote(name, safe=""), 1)
        yield from _filled(f"{filled}?step={CACHE}" if filled.endswith("/logs") else filled, names)


PARAMETERS = (("/projectgroups/{ref}", "group"), ("/projects/{ref}", "project"), ("/users/{ref}", "user"))
"""What `{ref}` is in a path."""


def opened(content: bytes) -> Iterator[bytes]:
    """The content, and what it is when it is decompressed."""
    yield content
    if content[:4] == ZSTD:
        yield zstd.decompress(content)
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)


def forms(secret: str) -> list[str]:
    """A secret as it is, and as the password of Basic authentication or in a URL."""
    pairs = [base64.b64encode(f"{user}:{secret}".encode()).decode().rstrip("=") for user in ("ann", "git", "x")]
    return [
        re.escape(one) for one in {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode(), *pairs}
    ]


@pytest.mark.seconds(240)
async def test_from_an_empty_service_to_another_deployment(open_path: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    work = new_repository(tmp_path / "work", {".runstream/config.yml": CONFIG, "file": "committed"})
    git(tmp_path, "clone", "-q", "--bare", str(work), str(hosts / "site.git"))
    clones = []
    for name in ("one", "two"):
        git(tmp_path, "clone", "-q", str(hosts / "site.git"), str(tmp_path / name))
        clones.append(tmp_path / name)
    here, there, left = open_path / "here", open_path / "there", open_path / "left"
    for folder in (here, there, left):
        folder.mkdir()
    settings = {"RUNSTREAM_GIT_FOLDERS": str(hosts)}
    async with servers(here, {"RUNSTREAM_OBJECTS_DIR": str(here / "objects"), **settings}) as deployment:
        await deployment.process("gateway", "gateway,scheduler,executor,configstore").start()
        with processes() as commands:
            async with deployment.client() as admin:
                users = {name: (await admin.users.create(name)).id for name in ("ann", "bob", "eve")}
                tokens = {name: await admin.users.create_token(name, "test") for name in users}
                hidden = await session(deployment, admin)
            url = deployment.gateway.url
            async with Client(url, token=tokens["ann"]) as ann, Client(url, token=tokens["bob"]) as bob:
                await ann.organizations.create("acme", visibility="private")
                await ann.organizations.set_member("acme", "bob")
                await ann.project_groups.create("web", "org/acme")
                repository = NewRepository(url=str(hosts / "site.git"))
                project = await ann.projects.create(
                    NewProject(
                        name="site",
                        parent_ref="org/acme/web",
                        visibility="private",
                        repository=repository,
                        members_can_perform_run_actions=True,
                    )
                )
                for name, access in (
                    ("with-a-password", NewRepository(url="https://x@git.example.com/x", password=PASSWORD)),
                    ("with-a-key", NewRepository(url="ssh://git@git.example.com/x", ssh_private_key=KEY)),
                ):
                    await ann.projects.create(NewProject(name=name, visibility="public", repository=access))
                await ann.secrets.create(project.id, "deploy", {"password": SECRET})
                when = NewVariableValue("deploy", "password")
                await ann.variables.create(project.id, "password", [when])

                await ann.projects.create_runs(project.path, CommitChoice(branch="main"))
                await ended(deployment, ann.project_runs, project.path, f"/project/{project.id}", 1)
                assert "<***> committed" in await said(bob, project.path, 1, SHOWN)
                assert "cache: miss" in await said(bob, project.path, 1, CACHE)
                async with httpx2.AsyncClient(base_url=f"{url}/api/v1alpha/projects") as http:
                    escaped = quote(project.path, safe="")
                    for path in (f"/{escaped}", f"/{escaped}/runs", f"/{escaped}/secrets", f"/{escaped}/runs/1"):
                        answer = await http.get(path, headers={"Authorization": f"token {tokens['eve']}"})
                        assert answer.status_code == 404, (path, answer.text)

                (clones[0] / "file").write_text("dirty")
                tried = zip((clones[0], clones[0], clones[1]), ("miss", "hit", "miss"), strict=True)
                for number, (clone, cache) in enumerate(tried, 1):
                    await direct_run(deployment, ann, users["ann"], tokens["ann"], clone, number)
                    assert f"cache: {cache}" in await said(ann, "ann", number, CACHE, direct=True), number
                    expected = "committed" if clone is clones[1] else "dirty"
                    assert f"<> {expected}" in await said(ann, "ann", number, SHOWN, direct=True)
                assert git(clones[0], "status", "--porcelain").split() == ["M", "file"]

                made = [one async for one in ann.audit.read(project=project.id)][-1].position
                await ann.projects.update(project.id, ProjectChanges(name="shop"))
                asked = ("project", "get", "--ref", project.path, "-o", "json")
                assert (await deployment.run(*asked)).code == 1
                then = await deployment.run(*asked, "--at", made)
                assert json.loads(then.out)["path"] == project.path, then
                before = (await ann.projects.get(project.id)).path
                runs = [await ann.project_runs.get(before, 1), await ann.user_runs.get("ann", 1)]
                tasks = [task.id for run in runs for task in run.tasks.values()]
            listed = (await deployment.run("run", "list", "-o", "json")).out
            ids = tuple(dict.fromkeys(re.findall(r'"id":\s*"([0-9a-f-]{36})"', listed)))
            snapshot = left / "snapshot"
            done = await deployment.beside("export", "-o", str(snapshot), "--with", "logs,archives")
            assert done.code == 0, done.err
        senders = {"nobody": "", "admin": TOKEN, **tokens}
        names = {
            "project": (before, project.id, "user/ann/with-a-key"),
            "group": ("org/acme", "org/acme/web", "user/ann"),
            "org": ("acme",),
            "user": ("ann", "bob"),
            "source": ("none",),
            "number": ("1", "2"),
            "task": (*tasks, "none"),
            "run_id": ids,
            "escaped_group": (f"/project/{project.id}", f"/user/{users['ann']}"),
        }
        answers = await every_answer(deployment, senders, names)
        assert sum(status == 200 for status, _ in answers.values()) > 100
        log = [await messages(deployment.nats.url, service=service) for service in ("runs", "config")]
        tables = await rows(deployment.postgres.url, left)
        assert await deployment.gateway.stop() == 0

    async with servers(there, {"RUNSTREAM_OBJECTS_DIR": str(there / "objects"), **settings}) as another:
        process = another.process("gateway", "gateway,scheduler,executor,configstore")
        process.data_dir.mkdir(parents=True)
        shutil.copy(here / "gateway" / "secrets.key", process.data_dir / "secrets.key")
        await process.start()
        moving: tuple[tuple[str, ...], ...] = (
            ("maintenance", "enable", "--service", "all", "--wait"),
            ("import", str(snapshot)),
            ("maintenance", "disable", "--service", "all", "--wait"),
        )
        for words in moving:
            done = await another.run(*words)
            assert done.code == 0, (words, done)
        done = await another.fsck()
        assert done.code == 0, done
        again = await every_answer(another, senders, names)
        assert {key: (answers[key], again[key]) for key in answers if answers[key] != again[key]} == {}
        async with Client(another.gateway.url, token=tokens["ann"]) as ann:
            await ann.projects.create_runs(before, CommitChoice(branch="main"))
            await ended(another, ann.project_runs, before, f"/project/{project.id}", 2)
            assert "<***> committed" in await said(ann, before, 2, SHOWN)

    with tarfile.open(snapshot) as tar:
        tar.extractall(left / "unpacked", filter="data")
    assert len(tables) > 5
    assert {"mirrors", "repositories"} <= {path.name for path in (here / "gateway").iterdir()}
    assert b"RunCreated" in log[0]
    assert b"SecretCreated" in log[1]
    where = {"log of runs": log[0], "log of config": log[1], "process lists": b"\n".join(commands)}
    for folder in (here / "nats", here / "objects", here / "gateway", here / "postgres" / "data", left):
        where |= contents(folder)
    where |= {str(path): path.read_bytes() for path in here.glob("*.stderr")}
    hidden |= {"secret": SECRET, "password": PASSWORD, "private key": PRIVATE}
    hidden |= {f"token of {name}": token for name, token in tokens.items()}
    needles = {name: re.compile("|".join(forms(one)).encode()) for name, one in hidden.items()}
    needles["token of a run"] = re.compile(RUN_TOKEN.encode())
    found = {
        (place, name)
        for place, content in where.items()
        for form in opened(content)
        for name, needle in needles.items()
        if needle.search(form)
    }
    assert found == set()
