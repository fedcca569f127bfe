"""Runs of commits: of projects with the URL of a git repository, and of working trees that users push."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runstream.commits import Position
from runstream.domain.actions import decide_cancel
from runstream.errors import BadRequestError
from runstream.events.run_config import RunConfig, Sealed
from runstream.events.variable import NamePattern, NamePatterns, SecretValue, ValueCondition
from runstream.gateway.runs.clone_tokens import clone_token
from runstream.git.save import push_saved, save_working_tree
from runstream.log.runs import FoundRun, find_run, locate_run
from runstream.sealing import OpenedSecrets
from tests.gateway.owners import Owners, basic
from tests.gateway.world import KEYRING, TOKEN
from tests.git.repositories import commit, git, git_process, new_repository

CONFIG = """
runs:
  - name: main
    tasks:
      - name: build
        runtime: {type: host}
        environment: {PASSWORD: {from_variable: password}, GREETING: {from_variable: greeting}}
        steps: [{clone: {}}, {run: make}]
  - name: release
    when: {tag: v1}
    tasks: [{name: publish, runtime: {type: host}, steps: [{run: make}]}]
"""


@pytest.fixture
async def owners(tmp_path: Path) -> AsyncIterator[Owners]:
    async with Owners.serving(tmp_path) as owners:
        yield owners


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A repository that projects may name."""
    return new_repository(tmp_path / "hosts" / "web", {".runstream/config.yml": CONFIG}, message="first\n\nwith a body")


async def created(owners: Owners, response: Any) -> list[FoundRun]:
    """The runs that a response says were appended, in their order."""
    assert response.status_code == 201, response.text
    assert response.content == b""
    return await runs_at(owners, response.headers.get("Runstream-Position", ""))


async def runs_at(owners: Owners, positions: str) -> list[FoundRun]:
    log, found = owners.world.log, []
    for text in filter(None, positions.split(",")):
        position = Position.parse(text)
        messages = log.streams[position.partition].messages
        run_id = messages[position.sequence - 1].subject.split(".")[5]
        found.append(await find_run(log, await locate_run(log, run_id)))
    return found


def refused(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response.json()[0]["code"]) == (status, code), response.text


def opened(config: RunConfig, task: str = "build") -> OpenedSecrets:
    return OpenedSecrets(config, config.tasks[task], KEYRING)


async def test_a_run_of_a_branch_has_the_projects_secrets_sealed(owners: Owners, host: Path) -> None:
    ann, token = await owners.user("ann")
    project = await owners.project("user/ann", str(host), password="clone-me-4711")
    await owners.secret(project, "login", {"word": "hunter2-4711", "other": "staging-4711"})
    elsewhere = ValueCondition(NamePatterns((NamePattern("simple", "other"),), ()), None, None)
    await owners.variable(
        project, "password", SecretValue("login", "other", elsewhere), SecretValue("login", "word", None)
    )
    async with owners.http(token) as http:
        (found,) = await created(owners, await http.post(f"/projects/{project}/createrun", json={"branch": "main"}))
    head = git(host, "rev-parse", "HEAD")
    assert (found.run.name, found.run.group) == ("main", f"/project/{project}/branch/main")
    assert found.run.annotations == {
        "run_type": "project",
        "ref_type": "branch",
        "run_creation_trigger": "manual",
        "webhook_event": "",
        "webhook_sender": "",
        "commit_sha": head,
        "ref": "refs/heads/main",
        "message": "first\n\nwith a body\n",
        "commit_link": "",
        "compare_link": "",
        "projectid": project,
        "branch": "main",
        "branch_link": "",
    }
    static = found.config.static_environment
    assert (static["AGOLA_GIT_COMMITSHA"], static["RUNSTREAM_REPOSITORY_URL"]) == (head, str(host))
    secrets = opened(found.config)
    assert secrets.all(static, "static")["RUNSTREAM_GIT_PASSWORD"] == "clone-me-4711"
    assert secrets.all(found.config.tasks["build"].environment, "task.environment") == {
        "PASSWORD": "hunter2-4711",
        "GREETING": "",
    }
    assert found.config.cache_group == ""
    assert not any(text in owners.appended() for text in ("hunter2-4711", "clone-me-4711", "staging-4711"))
    last = await owners.world.log.last(found.address)
    assert last is not None
    assert last.commit.actor == f"user:{ann.name}"


async def test_a_run_of_a_project_uses_the_caches_of_another_one_of_its_owner(owners: Owners, host: Path) -> None:
    _, token = await owners.user("ann")
    project, other = [await owners.project("user/ann", str(host), name=name) for name in ("web", "app")]
    body = {"branch": "main", "cache_group": f"/project/{other}"}
    async with owners.http(token) as http:
        (found,) = await created(owners, await http.post(f"/projects/{project}/createrun", json=body))
    assert found.config.cache_group == f"/project/{other}"


async def test_runs_of_tags_commits_and_marked_commits(owners: Owners, host: Path) -> None:
    _, token = await owners.user("ann")
    project = await owners.project("user/ann", str(host))
    first = git(host, "rev-parse", "HEAD")
    git(host, "tag", "v1")
    git(host, "branch", "feature/a")
    commit(host, {"file": "new"}, "second [ci skip]")
    async with owners.http(token) as http:
        path = f"/projects/{project}/createrun"
        runs = await created(owners, await http.post(path, json={"tag": "v1"}))
        assert [one.run.name for one in runs] == ["release"]  # positions name the last of a partition
        assert (runs[0].run.group, runs[0].run.annotations["message"]) == (f"/project/{project}/tag/v1", "Tag v1")
        (found,) = await created(owners, await http.post(path, json={"ref": "refs/heads/feature/a"}))
        assert found.run.group == f"/project/{project}/branch/feature%2Fa"
        assert await created(owners, await http.post(path, json={"branch": "main"})) == []
        (found,) = await created(owners, await http.post(path, json={"branch": "main", "commit_sha": first[:10]}))
        assert found.run.annotations["commit_sha"] == first
        commit(host, {".runstream/config.yml": "runs: 1"}, "broken [ci skip]")
        (found,) = await created(owners, await http.post(path, json={"branch": "main"}))
        assert (found.run.name, found.run.phase, found.run.tasks) == ("Setup Error", "setuperror", {})
        assert found.run.setup_errors


async def test_a_key_creates_the_runs_of_a_commit_once(owners: Owners, host: Path) -> None:
    _, token = await owners.user("ann")
    project = await owners.project("user/ann", str(host))
    async with owners.http(token) as http:
        for _ in range(2):
            headers = {"Idempotency-Key": "once"}
            done = await http.post(f"/projects/{project}/createrun", json={"branch": "main"}, headers=headers)
            assert done.status_code == 201
    assert owners.appended().count("RunCreated") == 1


async def test_who_may_create_runs_of_a_project(owners: Owners, host: Path) -> None:
    ann, _ = await owners.user("ann")
    bob, of_bob = await owners.user("bob")
    _, of_eve = await owners.user("eve")
    await owners.organization("acme", ann, bob, visibility="private")
    project = await owners.project("org/acme", str(host), visibility="private")
    reader, runner = await owners.token(ann.id, scope="read"), await owners.token(ann.id, scope="run")
    expected = {of_bob: 403, of_eve: 403, reader: 403, TOKEN: 403, "": 401, "wrong": 401, runner: 201}
    for token, status in expected.items():
        async with owners.http(token) as http:
            done = await http.post(f"/projects/{project}/createrun", json={"branch": "main"})
            assert done.status_code == status, (token, done.text)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalidRef"),
        ({"branch": None, "tag": None, "ref": None, "commit_sha": None, "further": 1}, 400, "invalidRef"),
        ({"branch": "main", "tag": "v1"}, 400, "invalidRef"),
        ({"ref": "refs/pull/1/head"}, 400, "invalidRef"),
        ({"branch": "--upload-pack=x"}, 404, "refDoesNotExist"),
        ({"branch": "a..b"}, 400, "invalidRef"),
        ({"branch": "none"}, 404, "refDoesNotExist"),
        ({"branch": "main", "commit_sha": "f" * 40}, 404, "commitDoesNotExist"),
        ({"branch": "main", "commit_sha": "--help"}, 400, "invalidCommit"),
        ([], 400, "invalidBody"),
        ({"branch": 1}, 400, "invalidBody"),
    ],
)
async def test_bad_requests_for_runs_of_a_project(
    owners: Owners, host: Path, body: Any, status: int, code: str
) -> None:
    _, token = await owners.user("ann")
    project = await owners.project("user/ann", str(host))
    async with owners.http(token) as http:
        refused(await http.post(f"/projects/{project}/createrun", json=body), status, code)


async def test_repositories_that_projects_cannot_have(owners: Owners, host: Path, tmp_path: Path) -> None:
    _, token = await owners.user("ann")
    secret = tmp_path / "secret"
    secret.write_text("key")
    (tmp_path / "hosts" / "file").write_text("no repository")
    new_repository(tmp_path / "hosts" / "empty")
    urls = {
        str(secret): (400, "sourceNotAllowed"),
        f"file://{secret}": (400, "sourceNotAllowed"),
        str(tmp_path / "hosts" / "file"): (400, "fetchFailed"),
        str(tmp_path / "hosts" / "empty"): (404, "configDoesNotExist"),
        "http://169.254.169.254/latest/meta-data": (400, "sourceNotAllowed"),
        "https://169.254.169.254/latest/meta-data": (400, "sourceNotAllowed"),
        "https://127.0.0.1:1/x": (400, "sourceNotAllowed"),
        "https://100.100.100.200/x": (400, "sourceNotAllowed"),
        "--upload-pack=touch x": (400, "invalidRepositoryURL"),
        "ext::sh -c touch": (400, "invalidRepositoryURL"),
    }
    async with owners.http(token) as http:
        for number, (url, (status, code)) in enumerate(urls.items()):
            project = await owners.project("user/ann", url, name=f"p{number}")
            refused(await http.post(f"/projects/{project}/createrun", json={"branch": "main"}), status, code)
        await owners.project("user/ann", name="none", kind="manual")
        refused(
            await http.post("/projects/user%2Fann%2Fnone/createrun", json={"branch": "main"}), 400, "invalidRepoPath"
        )
        refused(
            await http.post("/projects/user%2Fann%2Fgone/createrun", json={"branch": "main"}),
            404,
            "projectDoesNotExist",
        )


async def test_a_parked_config_service_answers_503(owners: Owners, host: Path) -> None:
    await owners.user("ann")
    project = await owners.project("user/ann", str(host))
    await owners.following.stop()
    async with owners.http(TOKEN) as http:
        done = await http.post(f"/projects/{project}/createrun", json={"branch": "main"})
        refused(done, 503, "configNotReady")


async def pushed(owners: Owners, clone: Path, user_id: str, token: str, ref: str = "refs/heads/main") -> dict[str, Any]:
    """Save the working tree, push it, and return the body of its direct run."""
    saved = await asyncio.to_thread(save_working_tree, clone)
    path = f"{user_id}/{saved.clone_id}"
    url = owners.repository_url(path)
    await asyncio.to_thread(push_saved, saved, url, ref, username="git", password=token)
    return {"repo_uuid": saved.clone_id, "repo_path": path, "commit_sha": saved.commit, "message": saved.message}


async def test_direct_runs_of_two_dirty_clones(owners: Owners, tmp_path: Path) -> None:
    ann, token = await owners.user("ann")
    first = new_repository(tmp_path / "first", {".runstream/config.yml": "runs: []\n"})
    git(tmp_path, "clone", "-q", str(first), "second")
    caches = []
    async with owners.http(token) as http:
        for clone in (first, tmp_path / "second"):
            (clone / ".runstream" / "config.yml").write_text(CONFIG)  # not committed
            body = await pushed(owners, clone, ann.id, token)
            body |= {"branch": "main", "variables": {"greeting": "hello"}}
            (found,) = await created(owners, await http.post("/user/createrun", json=body))
            assert found.run.group == f"/user/{ann.id}/branch/main"
            assert (found.run.annotations["run_type"], found.run.annotations["userid"]) == ("user", ann.id)
            static = found.config.static_environment
            assert static["AGOLA_REPOSITORY_URL"] == f"http://runstream.example/repos/{body['repo_path']}.git"
            assert "greeting" not in {**static, **found.config.environment}
            assert found.config.tasks["build"].environment["GREETING"] == "hello"
            caches.append(found.config.cache_group)
            assert found.config.cache_group == f"{ann.id}-{body['repo_uuid']}"
    assert len(set(caches)) == 2


async def test_a_runs_token_clones_its_repository_alone_until_the_run_ends(owners: Owners, tmp_path: Path) -> None:
    ann, token = await owners.user("ann")
    clone, other = (new_repository(tmp_path / name, {".runstream/config.yml": CONFIG}) for name in ("one", "two"))
    body = await pushed(owners, clone, ann.id, token)
    elsewhere = await pushed(owners, other, ann.id, token)
    async with owners.http(token) as http:
        (found,) = await created(owners, await http.post("/user/createrun", json={**body, "branch": "main"}))
    password = found.config.static_environment["AGOLA_GIT_PASSWORD"]
    assert isinstance(password, Sealed)
    of_run = opened(found.config).all(found.config.static_environment, "static")["AGOLA_GIT_PASSWORD"]
    assert of_run not in owners.appended()

    async def fails(*arguments: str) -> str:
        done = await asyncio.to_thread(git_process, tmp_path, *arguments)
        assert done.returncode
        return done.stderr.decode()

    ours = owners.repository_url(body["repo_path"], of_run)
    await asyncio.to_thread(git, tmp_path, "clone", "-q", ours, "copy")
    assert git(tmp_path / "copy", "rev-parse", "HEAD") == body["commit_sha"]
    assert "403" in await fails("-C", str(tmp_path / "copy"), "push", ours, "HEAD:refs/heads/other")
    assert "Authentication failed" in await fails("clone", owners.repository_url(elsewhere["repo_path"], of_run), "x")
    forged = clone_token(KEYRING, "11111111-1111-4111-8111-111111111111", body["repo_path"])
    assert "Authentication failed" in await fails("clone", owners.repository_url(body["repo_path"], forged), "x")
    await owners.world.context.actions.on_run(found.run.id, decide_cancel)
    assert "Authentication failed" in await fails("clone", ours, "again")

    async with owners.http(TOKEN) as http:  # a restart has a token of its own
        done = await http.post("/runs", json={"run_id": found.run.id, "from_start": True})
    (again,) = await runs_at(owners, done.headers["Runstream-Position"])
    renewed = opened(again.config).all(again.config.static_environment, "static")["AGOLA_GIT_PASSWORD"]
    assert renewed != of_run
    await asyncio.to_thread(git, tmp_path, "clone", "-q", owners.repository_url(body["repo_path"], renewed), "third")


async def test_repositories_are_their_users_alone(owners: Owners, tmp_path: Path) -> None:
    ann, of_ann = await owners.user("ann")
    _, of_eve = await owners.user("eve")
    reader = await owners.token(ann.id, scope="read")
    clone = new_repository(tmp_path / "clone", {".runstream/config.yml": CONFIG})
    body = await pushed(owners, clone, ann.id, of_ann)
    url = f"{owners.url}/repos/{body['repo_path']}.git/info/refs?service="
    fetch, push = "git-upload-pack", "git-receive-pack"
    expected = [
        ("", fetch, 401),
        ("", push, 401),
        (basic("wrong"), fetch, 401),
        (basic(TOKEN), fetch, 401),
        (basic(of_eve), fetch, 404),
        (basic(of_eve), push, 404),
        (basic(reader), fetch, 200),
        (basic(reader), push, 403),
        (f"Token {of_ann}", push, 200),
        (basic(of_ann), fetch, 200),
        ("Basic !", fetch, 401),
        ("Digest x", fetch, 401),
    ]
    async with owners.http("x") as http:
        for authorization, service, status in expected:
            done = await http.get(url + service, headers={"Authorization": authorization})
            assert done.status_code == status, (authorization, service, done.text)
    saved = await asyncio.to_thread(save_working_tree, clone)
    with pytest.raises(BadRequestError, match="not yours"):
        await asyncio.to_thread(
            push_saved, saved, owners.repository_url(body["repo_path"]), "refs/heads/x", username="git", password=of_eve
        )


async def test_anonymous_pushes_are_a_setting(tmp_path: Path) -> None:
    async with Owners.serving(tmp_path, git_anonymous_push=True) as owners:
        ann, _ = await owners.user("ann")
        for user, service, status in (
            (ann.id, "git-receive-pack", 200),
            (ann.id, "git-upload-pack", 401),
            ("11111111-1111-4111-8111-111111111111", "git-receive-pack", 401),
        ):
            path = f"/repos/{user}/33333333-3333-4333-8333-333333333333.git/info/refs?service={service}"
            async with owners.http("") as http:
                assert (await http.get(f"{owners.url}{path}")).status_code == status


async def test_bad_direct_runs(owners: Owners, tmp_path: Path) -> None:
    ann, token = await owners.user("ann")
    eve, of_eve = await owners.user("eve")
    clone = new_repository(tmp_path / "clone", {".runstream/config.yml": CONFIG})
    good = {**await pushed(owners, clone, ann.id, token), "branch": "main"}
    bare = {**good, "branch": ""}
    foreign = good["repo_path"].replace(ann.id, eve.id)
    reader = await owners.token(ann.id, scope="read")
    cases = [
        *(
            (key, {**good, "repo_path": path}, 403)
            for key in (TOKEN, reader)
            for path in ("a/b", "", good["repo_path"])
        ),
        (token, {**good, "repo_path": "a/b"}, 401),
        (token, {**good, "repo_path": f"{ann.id}/b"}, 400),
        (token, {**good, "repo_path": ""}, 400),
        (TOKEN, good, 403),
        (of_eve, good, 401),
        (token, {**good, "repo_path": foreign}, 401),
        (token, {**good, "repo_path": "../../etc"}, 400),
        (token, {**good, "repo_path": f"{good['repo_path']}/more"}, 400),
        (token, {**good, "repo_uuid": ""}, 400),
        (token, {**good, "repo_uuid": "../x"}, 400),
        (token, bare, 400),
        (token, {**good, "tag": "v1"}, 400),
        (token, {**good, "message": ""}, 400),
        (token, {**good, "commit_sha": ""}, 400),
        (token, {**good, "commit_sha": "f" * 40}, 404),
        (token, {**bare, "ref": "refs/changes/1"}, 400),
        (token, {**bare, "ref": "refs/changes/1", "pull_request_ref_regexes": ["("]}, 400),
        (token, {**bare, "ref": "refs/changes/1", "pull_request_ref_regexes": ["refs/changes/1"]}, 400),
        (token, {**bare, "ref": "refs/changes/1", "pull_request_ref_regexes": [r"refs/changes/(\d+)"]}, 201),
        (token, {**bare, "ref": "refs/merge-requests/7/head"}, 201),
        (token, {**bare, "ref": "refs/pull/7/head", "pull_request_ref_regexes": None, "variables": None}, 201),
    ]
    for key, body, status in cases:
        async with owners.http(key) as http:
            done = await http.post("/user/createrun", json=body)
            assert done.status_code == status, (body, done.text)
            assert ": b'" not in done.text
            if status == 201:
                (found,) = await created(owners, done)
                assert found.run.group.startswith(f"/user/{ann.id}/pr/")
