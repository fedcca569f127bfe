"""(k) Users, projects and secrets: requests to a gateway that has 10,000 projects, and the import of such a state.

100 organizations with 10 groups of 10 projects each; each project has two secrets and three variables.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
import orjson
from msgspec.structs import replace

from benchmarks.children import timed
from benchmarks.figures import Figures, percentile
from benchmarks.http import Connection, connections
from benchmarks.imports import make_target
from benchmarks.standing import PARTITIONS, Deployment, Servers
from runstream import config_folding
from runstream.config.sealed import seal_secret, seal_text
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.config.tokens import new_token
from runstream.domain.config.decisions.projects import MANUAL, SETTINGS
from runstream.domain.config.state import Change, Decision
from runstream.events.organization import OrganizationCreated, OrganizationMemberSet
from runstream.events.project import ProjectCreated
from runstream.events.project_group import GroupParent, ProjectGroupCreated
from runstream.events.secret import SecretCreated, TreePlace
from runstream.events.user import UserCreated, UserTokenCreated
from runstream.events.variable import SecretValue, VariableCreated
from runstream.ids import new_id
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.log.port import MAX_BATCH_COMMITS
from runstream.sealing import Keyring, make_key_file

ORGANIZATIONS, GROUPS, PROJECTS, SECRETS, VARIABLES = 100, 10, 10, 2, 3
"""Of the service, of an organization, of a group, and of a project (the last two)."""
REQUEST_AIM_MS = 50.0
IMPORT_AIM_SECONDS = 30.0
SAMPLES = 400
WRITERS = 8
NEW_COMMITS = 100
FIRST_RUNS = 20
"""Projects whose repository has no mirror yet."""
_IMPORT_SECONDS = 300.0
_CONFIG = """
runs:
  - name: main
    tasks:
      - name: build
        runtime: {type: host}
        environment: {KEY: {from_variable: variable0}, OTHER: {from_variable: variable1}}
        steps: [{run: make}]
"""


@dataclass(frozen=True, slots=True)
class State:
    """The state of the service, with the token of the owner of all organizations."""

    token: str
    size: int
    """Of all things."""


async def measure(servers: Servers, figures: Figures, repetitions: int) -> None:
    """Fill a service; then send requests to it, export it, and import it elsewhere."""
    namespace = "projects"
    keys = servers.folder / "projects.keys"
    make_key_file(keys)
    repository = _bare_repository(servers.folder)
    async with servers.log(namespace), config_log(servers, namespace) as log:
        state = await _fill(log, Keyring.read(keys), str(repository))
        figures.add("k", f"loading {state.size:,} users, projects and secrets", "s", await _loads(log, repetitions))
        deployment = Deployment(servers, namespace)
        settings = servers.folder / "projects.yml"
        settings.write_text(f"git_folders: [{servers.folder}]\nsecrets_key_file: {keys}\n")
        async with deployment.running(gateway=("--config", str(settings)), scheduler=(), configstore=()):
            await _requests(deployment, state, repository, figures, repetitions)
        await _import(servers, namespace, state, figures, repetitions)


@asynccontextmanager
async def config_log(servers: Servers, namespace: str) -> AsyncIterator[JetStreamLog]:
    """The log of users, projects and secrets of a namespace; made when it is not there."""
    async with (
        nats_connection(servers.nats.url, "benchmarks") as client,
        await open_log(client, namespace, config_folding.SERVICE, create=True, partitions=1) as log,
    ):
        yield log


def _bare_repository(folder: Path) -> Path:
    work, bare = folder / "work", folder / "web.git"
    (work / ".runstream").mkdir(parents=True)
    (work / ".runstream" / "config.yml").write_text(_CONFIG)
    git = ("git", "-c", "user.name=b", "-c", "user.email=b@example.com", "-C", str(work))
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "configuration")):
        subprocess.run([*git, *words], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    return bare


async def _fill(log: JetStreamLog, keyring: Keyring, repository: str) -> State:
    text, digest = new_token()
    changes = list(_changes(keyring, repository, digest))
    store = ConfigStore(log)
    async with ConfigFollower(store).serving():
        for start in range(0, len(changes), MAX_BATCH_COMMITS):
            batch = changes[start : start + MAX_BATCH_COMMITS]
            await store.change(lambda _, batch=batch: batch, actor="benchmarks")  # type: ignore[misc]
    return State(text, len(changes))


def _changes(keyring: Keyring, repository: str, digest: str) -> Iterator[Change]:
    user = new_id()
    token = UserTokenCreated(new_id(), "benchmarks", digest, "admin", None)
    yield Change("user", user, (UserCreated("owner"), token))
    yield Change("projectgroup", new_id(), (ProjectGroupCreated("", GroupParent("user", user), "public"),))
    for number in range(ORGANIZATIONS):
        organization, root = new_id(), new_id()
        created = OrganizationCreated(f"org{number}", "private" if number % 2 else "public", user)
        yield Change("org", organization, (created, OrganizationMemberSet(user, "owner")))
        yield Change("projectgroup", root, (ProjectGroupCreated("", GroupParent("org", organization), "public"),))
        for name in range(GROUPS):
            group = new_id()
            parent = GroupParent("projectgroup", root)
            yield Change("projectgroup", group, (ProjectGroupCreated(f"group{name}", parent, "public"),))
            for project in range(PROJECTS):
                yield from _project(keyring, repository, group, f"project{project}")


def _project(keyring: Keyring, repository: str, group: str, name: str) -> Decision:
    key = new_id()
    place = TreePlace("project", key)
    webhook = seal_text(keyring, "hook", "project", key, "webhook_secret")
    at = replace(MANUAL, kind="git", url=repository)
    changes = [Change("project", key, (ProjectCreated(name, group, "public", at, SETTINGS, webhook),))]
    for number in range(SECRETS):
        secret = new_id()
        sealed = seal_secret(keyring, secret, place, {"key": f"text {number}"})
        changes.append(Change("secret", secret, (SecretCreated(f"secret{number}", place, sealed),)))
    for number in range(VARIABLES):
        values = (SecretValue(f"secret{number % SECRETS}", "key", None),)
        changes.append(Change("variable", new_id(), (VariableCreated(f"variable{number}", place, values),)))
    return changes


async def _loads(log: JetStreamLog, repetitions: int) -> list[float]:
    """Seconds in which a gateway reads the log and folds it."""
    seconds = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        async with ConfigFollower(ConfigStore(log)).serving():
            seconds.append(time.perf_counter() - begun)
    return seconds


async def _requests(deployment: Deployment, state: State, repository: Path, figures: Figures, repetitions: int) -> None:
    async with connections(deployment.url, state.token, 1) as (first,):
        await _create_run(first, 0)  # makes the mirror
        for name, send in (("get", _get), ("list", _list), ("createrun, mirror warm", _create_run_again)):
            _add(figures, name, [await _samples(first, send) for _ in range(repetitions)])
        new = [[await _of_new_commit(first, repository) for _ in range(NEW_COMMITS)] for _ in range(repetitions)]
        _add(figures, "createrun, new commit", new)
        cold = [await _timed(first, _create_run, number) for number in range(1, FIRST_RUNS + 1)]
        figures.add("k", "createrun, first of a project: p50", "ms", [percentile(cold, 50)], better="less")
    numbers = itertools.count()
    for clients in (1, WRITERS):
        async with connections(deployment.url, state.token, clients) as opened:
            rates = [await _writes(opened, numbers) for _ in range(repetitions)]
        figures.add("k", f"writes, clients: {clients}", "/s", rates)


def _add(figures: Figures, name: str, samples: Sequence[list[float]]) -> None:
    figures.add("k", f"{name}: p50", "ms", [percentile(one, 50) for one in samples], better="less")
    figures.add("k", f"{name}: p99", "ms", [percentile(one, 99) for one in samples], aim=REQUEST_AIM_MS, better="less")


Send = Callable[[Connection, int], Awaitable[object]]


async def _timed(connection: Connection, send: Send, number: int) -> float:
    begun = time.perf_counter()
    await send(connection, number)
    return (time.perf_counter() - begun) * 1000


async def _samples(connection: Connection, send: Send) -> list[float]:
    return [await _timed(connection, send, number) for number in range(SAMPLES)]


def _path(number: int) -> str:
    """The path of a project, spread over all organizations and groups."""
    number = number * 7919 % (ORGANIZATIONS * GROUPS * PROJECTS)
    organization, rest = divmod(number, GROUPS * PROJECTS)
    group, project = divmod(rest, PROJECTS)
    return f"org/org{organization}/group{group}/project{project}"


def _project_path(number: int) -> str:
    return f"/projects/{quote(_path(number), safe='')}"


def _group_path(number: int) -> str:
    return f"/projectgroups/{quote(_path(number).rpartition('/')[0], safe='')}"


async def _get(connection: Connection, number: int) -> object:
    paths = (_project_path(number), _group_path(number), f"/orgs/org{number % ORGANIZATIONS}", "/user")
    return await connection.request("GET", paths[number % len(paths)], b"", 200)


async def _list(connection: Connection, number: int) -> object:
    paths = (
        f"{_group_path(number)}/projects",
        f"/projectgroups/org%2Forg{number % ORGANIZATIONS}/subgroups",
        f"{_project_path(number)}/secrets?tree",
        f"{_project_path(number)}/variables?tree&removeoverridden",
        f"{_project_path(number)}/runs",
        "/orgs",
        "/user/orgs?limit=0",
    )
    return await connection.request("GET", paths[number % len(paths)], b"", 200)


async def _create_run(connection: Connection, number: int) -> object:
    return await connection.request("POST", f"{_project_path(number)}/createrun", b'{"branch": "main"}', 201)


async def _create_run_again(connection: Connection, _number: int) -> object:
    return await _create_run(connection, 0)


async def _of_new_commit(connection: Connection, repository: Path) -> float:
    """Time a request for the branch of a repository whose mirror lacks the last commit."""
    await asyncio.to_thread(_commit_again, repository)
    return await _timed(connection, _create_run, 0)


def _commit_again(repository: Path) -> None:
    git = ("git", "-c", "user.name=b", "-c", "user.email=b@example.com", "-C", str(repository))
    words = ("commit-tree", "-m", "again", "-p", "main", "main^{tree}")
    made = subprocess.run([*git, *words], check=True, capture_output=True, text=True)
    subprocess.run([*git, "update-ref", "refs/heads/main", made.stdout.strip()], check=True)


async def _writes(opened: Sequence[Connection], numbers: Iterator[int]) -> float:
    """Variables that are created in a second, by all clients together."""

    async def write(connection: Connection) -> None:
        for _ in range(SAMPLES // len(opened)):
            number = next(numbers)
            body = {"name": f"new{number}", "values": [{"secret_name": "secret0", "secret_var": "key"}]}
            await connection.request("POST", f"{_project_path(number)}/variables", orjson.dumps(body), 201)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for connection in opened:
            group.create_task(write(connection))
    return SAMPLES / (time.perf_counter() - begun)


async def _import(servers: Servers, namespace: str, state: State, figures: Figures, repetitions: int) -> None:
    file = servers.folder / "projects.tar"
    url = ("--nats-url", servers.nats.url, "--database-url", servers.postgres.url)
    exported = await timed("export", *url, "--namespace", namespace, "-o", file, seconds=_IMPORT_SECONDS)
    figures.add("k", "export", "s", [exported.seconds], better="less")
    seconds = []
    for number in range(repetitions):
        target = f"{namespace}{number}"
        await make_target(servers, target, PARTITIONS)
        where = (*url, "--namespace", target, "--database-schema", target)
        seconds.append((await timed("import", file, *where, seconds=_IMPORT_SECONDS)).seconds)
        await _require_rows(servers, target, ORGANIZATIONS * GROUPS * PROJECTS)
    figures.add("k", f"import of {state.size:,} things", "s", seconds, aim=IMPORT_AIM_SECONDS, better="less")


async def _require_rows(servers: Servers, schema: str, projects: int) -> None:
    """Raise RuntimeError unless the rows of all projects are there."""
    connection = await asyncpg.connect(servers.postgres.url)
    try:
        found = await connection.fetchval(f"SELECT count(*) FROM \"{schema}\".config WHERE kind = 'project'")  # noqa: S608
    finally:
        await connection.close()
    if found != projects:
        raise RuntimeError(f"{found} projects are there after an import of {projects}")
