"""Fixtures for every test: real servers, one pair for all workers; a namespace and a schema of its own.

anyio runs coroutine tests on uvloop: for at most a minute, or for as long as the mark `seconds` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import functools
import gc
import inspect
import json
import logging
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pytest
import structlog
import uvloop
from hypothesis import HealthCheck, settings

from runstream.embedded import NatsServer, PostgresServer
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.objects import ObjectStorage
from tests import memory_disk, prepared
from tests.docker_engine import GIVEN, DockerEngine, GivenEngine, missing
from tests.log.servers import Connection, connected
from tests.objects.backends import Open, opener
from tests.s3_server import OwnS3Server, S3Server
from tests.servers import Servers

TEST_SECONDS = 60
CLOSING_SECONDS = 30
"""Seconds that a timed-out test may take to clean up."""
PHASE_SECONDS = 300
"""Seconds that a test's fixtures, or a test that is not a coroutine, may take."""


TERMINAL = pytest.StashKey[int]()
"""The error output as it is before pytest captures it: where the process stood when it did not go on."""


MEMORY_DISK = pytest.StashKey[Path]()
"""The folder of the session's temporary files, which its first process mounted."""


class _Server(Protocol):
    @property
    def url(self) -> str: ...
    async def start(self) -> None: ...
    async def end_leftover(self) -> None: ...


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Bound a test that is a coroutine function; anyio runs it."""
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        mark = pyfuncitem.get_closest_marker("seconds")
        pyfuncitem.obj = _bounded(pyfuncitem.obj, TEST_SECONDS if mark is None else int(mark.args[0]))


def _bounded(test: Callable[..., Coroutine[Any, Any, None]], seconds: int) -> Callable[..., Coroutine[Any, Any, None]]:
    @functools.wraps(test)
    async def bounded(**arguments: object) -> None:
        async with asyncio.timeout(seconds):
            await test(**arguments)

    return bounded


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Bound what prepares a test."""
    return (yield from _ends_in(item, PHASE_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Bound a test that blocks its loop, a task of it that ignores its end, and a test that is no coroutine."""
    mark = item.get_closest_marker("seconds")
    seconds = PHASE_SECONDS if mark is None else max(PHASE_SECONDS, int(mark.args[0]) + CLOSING_SECONDS)
    return (yield from _ends_in(item, seconds))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Bound what cleans up after a test."""
    return (yield from _ends_in(item, PHASE_SECONDS))


def _ends_in(item: pytest.Item, seconds: int) -> Iterator[None]:
    """End the process, and say where each thread of it stood, when a phase of a test takes longer than this."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[TERMINAL])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """What runs coroutine tests and fixtures: the loop that the product runs on."""
    return "asyncio", {"use_uvloop": True}


settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""On a machine that does much else, no example says by its time that something is wrong."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.stash[TERMINAL] = os.dup(2)
    _use_memory(config)
    gc.disable()  # until the tests are collected: no module of theirs is garbage
    settings.load_profile("busy")
    config.addinivalue_line("markers", f"seconds(n): how long a coroutine test may take; {TEST_SECONDS} without")
    # Hundreds of processes of ours are started: none of them has to compile what another has compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    config.addinivalue_line("markers", "again: a long test once more, with other storage; `make test-again`")
    config.addinivalue_line("markers", "images: the images, built and started by an engine; `make test-images`")
    config.addinivalue_line("markers", "chaos: kills by -9 at random moments; many more of them in `make chaos`")


def _use_memory(config: pytest.Config) -> None:
    """Let a session with workers have its temporary files in memory; one without keeps them for its reader."""
    workerinput = getattr(config, "workerinput", None)
    if workerinput is not None:
        folder = Path(config.option.basetemp).parents[1]  # DISK/pytest/popen-gw0
        if folder.name.startswith("rs-"):
            tempfile.tempdir = str(folder)
    elif config.getoption("numprocesses", None) and config.option.basetemp is None:
        disk = memory_disk.mounted()
        if disk is not None:
            config.stash[MEMORY_DISK] = disk
            config.option.basetemp = str(disk / "pytest")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Unmount what this process mounted."""
    if (folder := config.stash.get(MEMORY_DISK, None)) is not None:
        memory_disk.unmount(folder)


def pytest_xdist_auto_num_workers() -> int:
    """Tests wait for servers about a third of their time: let others work meanwhile."""
    return len(os.sched_getaffinity(0)) * 2


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that have long tests: at the end, no worker should be alone with one."""
    long = {item.path for item in items if item.get_closest_marker("seconds")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    """Keep the thousands of tests, which stay until the end, out of each later collection of garbage."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _loggers_are_made_anew() -> Iterator[None]:
    """Let no logger keep the configuration of its first use: the next test would not see its lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", functools.partial(_configure_without_cache, structlog.configure))
        yield


def _configure_without_cache(configure: Callable[..., None], **configuration: Any) -> None:
    configure(**{**configuration, "cache_logger_on_first_use": False})


@pytest.fixture(autouse=True, scope="module")
def _logging_as_before_the_module() -> Iterator[None]:
    """Undo what the service of a module set up: the next module would not see warnings that it left out."""
    with _logging_kept():
        yield


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a test, or what it made, set up of logging: the next test has its own levels and handlers."""
    with _logging_kept():
        yield


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configuration = structlog.get_config() if structlog.is_configured() else None
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    if configuration is not None:
        structlog.configure(**configuration)


@pytest.fixture(scope="session")
def nats_url(servers_folder: Path, worker_count: int) -> Iterator[str]:
    """The URL of a real NATS server with JetStream, the same for all workers."""
    folder = servers_folder / "nats"
    yield from _serve(folder, lambda: NatsServer(folder, durable=False, tied=worker_count == 0))


@pytest.fixture(scope="session")
def database_url(servers_folder: Path, worker_count: int) -> Iterator[str]:
    """The `postgresql://` URL of a real Postgres, the same for all workers."""
    folder = servers_folder / "postgres"
    yield from _serve(folder, lambda: PostgresServer(folder, durable=False, tied=worker_count == 0))


@pytest.fixture(scope="session")
def s3_url(servers_folder: Path, worker_count: int) -> Iterator[str]:
    """The endpoint of a server that speaks S3 over HTTP, the same for all workers; tests differ by bucket."""
    folder = servers_folder / "s3"
    yield from _serve(folder, lambda: S3Server(folder, tied=worker_count == 0))


@pytest.fixture(scope="session")
def docker_engine(servers_folder: Path, worker_count: int) -> Iterator[DockerEngine]:
    """A real container engine, the same for all workers; without its programs the test is skipped."""
    if reason := missing():
        pytest.skip(f"no container engine: {reason}")
    folder = servers_folder / "docker"
    engine = GivenEngine(folder) if GIVEN else DockerEngine(folder, tied=worker_count == 0, tls=True)
    for _ in _serve(folder, lambda: engine):
        yield engine


@pytest.fixture(scope="session")
def own_s3_url(servers_folder: Path, worker_count: int) -> Iterator[str]:
    """The endpoint of the small S3 server of docker/, the same for all workers."""
    folder = servers_folder / "own-s3"
    yield from _serve(folder, lambda: OwnS3Server(folder, tied=worker_count == 0))


@pytest.fixture(scope="session")
def worker_count(request: pytest.FixtureRequest) -> int:
    """How many workers share the servers; 0 without xdist."""
    workerinput = getattr(request.config, "workerinput", None)
    return 0 if workerinput is None else int(workerinput["workercount"])


@pytest.fixture(scope="session")
def servers_folder(worker_count: int) -> Iterator[Path]:
    """Yield the folder that all workers of this session share; the last worker removes it.

    Not below pytest's own temporary folder: each session of pytest closes that to the database's user. Its name is
    short, because sockets are below it, whose paths may have 107 bytes.
    """
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", "") if worker_count else ""
    folder = Path(tempfile.gettempdir()) / f"runstream-tests-{session[:16] or secrets.token_hex(8)}"
    with _users(folder) as users:
        users["folder"] = users.get("folder", 0) + 1
    yield folder
    with _users(folder) as users:
        users["folder"] -= 1
        if users["folder"] == 0:
            shutil.rmtree(folder)


@pytest.fixture(autouse=True, scope="session")
def _one_template(servers_folder: Path) -> None:
    """Let the workers copy one migrated database instead of making one each."""
    prepared.share(servers_folder)


@pytest.fixture(params=["posix", "s3"])
def storage_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of object storage that users can have."""
    return str(request.param)


@pytest.fixture
def open_storage(storage_kind: str, request: pytest.FixtureRequest) -> Open:
    """Opens an object storage of each kind, empty at first."""
    return opener(storage_kind, request)


@pytest.fixture
def storage(open_storage: Open) -> ObjectStorage:
    """The storage, opened."""
    return uvloop.run(_opened(open_storage))


@pytest.fixture
def other_storage(storage_kind: str, request: pytest.FixtureRequest) -> ObjectStorage:
    """Another storage of the same kind, opened."""
    return uvloop.run(_opened(opener(storage_kind, request, "elsewhere")))


async def _opened(open_storage: Open) -> ObjectStorage:
    return await open_storage()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A temporary folder like `tmp_path` that an embedded database's user can pass through as well."""
    with tempfile.TemporaryDirectory(prefix="runstream-test-") as folder:
        yield Path(folder)


@pytest.fixture
def small_disk(open_path: Path) -> Iterator[Path]:
    """An empty disk of 24 MiB of its own; without the right to mount one the test is skipped."""
    folder = open_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def namespace() -> str:
    """The first token of all subjects of one test."""
    return f"test{secrets.token_hex(6)}"


@pytest.fixture
def database_schema(database_url: str) -> Iterator[str]:
    """The name of one test's schema (not made yet); dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    yield name
    uvloop.run(drop_schema(database_url, name))


@pytest.fixture
async def nc(nats_url: str) -> AsyncIterator[Connection]:
    """A connection to NATS."""
    async with connected(nats_url) as nc:
        yield nc


@pytest.fixture
async def log(nc: Connection, namespace: str) -> AsyncIterator[JetStreamLog]:
    """A real, empty log of one partition, opened."""
    async with await open_log(nc, namespace, create=True, partitions=1) as log:
        yield log


@pytest.fixture
def servers(nats_url: str, database_url: str, namespace: str, database_schema: str) -> Servers:
    """The servers, and this test's own place on them."""
    return Servers(nats_url, database_url, namespace, database_schema)


async def drop_schema(url: str, schema: str) -> None:
    """Remove a schema and everything in it."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
    finally:
        await connection.close()


def _serve(folder: Path, make: Callable[[], _Server]) -> Iterator[str]:
    """Start the server for its first user, and stop it after its last."""
    server = make()
    with _users(folder.parent) as users:
        if users.get(folder.name, 0) == 0:
            uvloop.run(server.start())
        users[folder.name] = users.get(folder.name, 0) + 1
    yield server.url
    with _users(folder.parent) as users:
        users[folder.name] -= 1
        if users[folder.name] == 0:
            uvloop.run(server.end_leftover())


@contextlib.contextmanager
def _users(folder: Path) -> Iterator[dict[str, int]]:
    """How many use each server and the folder itself, changed by one worker at a time."""
    path = folder.with_suffix(".users")
    while True:
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The last user removes the file: who waited for the lock of a removed one begins again.
            if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                continue
            file.seek(0)
            users: dict[str, int] = json.loads(file.read() or "{}")
            yield users
            file.seek(0)
            file.truncate()
            file.write(json.dumps(users))
            if not any(users.values()):
                path.unlink()
            return
