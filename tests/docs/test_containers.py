"""The examples with containers run: those of the documents, and the files in docs/examples.

A real service has a real engine. A local image has the names of the public images, and a registry on loopback stands
for private ones.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import drop_schema
from tests.docker_engine import DockerEngine, needs_engine
from tests.docs import container_images
from tests.docs.blocks import ROOT, all_blocks, blocks_of
from tests.registry import LOGIN, registry
from tests.runconfig.test_documents import EXAMPLES, PROGRAMS, whole
from tests.service.running import runstream, serving

pytestmark = [needs_engine, pytest.mark.seconds(180)]

EXAMPLE_FILES = ROOT / "docs" / "examples"
HUB_AUTH = base64.b64encode(b"user:password").decode()
VARIABLES = {"db_password": "only-here", "docker_auth": HUB_AUTH, "docker_hub_auth": HUB_AUTH}
VARIABLES["registry_password"] = LOGIN[1]


@dataclass(frozen=True)
class Service:
    """A service whose executor has an engine, and a repository for its runs."""

    folder: Path
    repository: Path
    shared: dict[str, str]
    engine: DockerEngine

    async def __call__(self, *words: str, status: int = 0) -> str:
        """Run a command that is to end with this status; return what it prints."""
        code, out, complained = await runstream("--data-dir", str(self.folder / "service"), *words)
        assert code == status, out + complained
        return out + complained

    async def create(self, name: str, config: str, *words: str, status: int = 0, follow: bool = True) -> str:
        """Create the run of a configuration; return what the command prints. Its group has this name."""
        file = self.folder / name
        file.write_text(config)
        variables = [word for variable, value in VARIABLES.items() for word in ("--var", f"{variable}={value}")]
        group = f"/project/{file.stem}/branch/main"
        words = ("--config", str(file), "--group", group, "--repo", str(self.repository), *variables, *words)
        return await self("run", "create", *words, *(["--follow"] if follow else []), status=status)

    def executor(self, name: str, **settings: str) -> contextlib.AbstractAsyncContextManager[object]:
        """A second executor."""
        return serving(self.folder / name, "--components", "executor", **_settings(self.shared, **settings))


def _settings(shared: dict[str, str], **settings: str) -> dict[str, str]:
    """The variables of an executor that uses images as the engine has them, without a network."""
    given = {"PULL_POLICY": "missing", "POD_NETWORK": "none", "SANDBOX": "off", "STOP_GRACE_SECONDS": "0.5"} | settings
    return shared | {f"RUNSTREAM_EXECUTOR_{name}": value for name, value in given.items()}


@pytest.fixture(scope="module")
def images(docker_engine: DockerEngine) -> DockerEngine:
    """The engine, with the image under its names."""
    container_images.load(docker_engine)
    return docker_engine


@pytest.fixture(scope="module")
def private() -> Iterator[str]:
    """The address of a registry that asks for a login."""
    with registry(private=True, files=container_images.files()) as address:
        yield address


@pytest.fixture(scope="module")
async def service(
    images: DockerEngine, nats_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """The service, on the servers of all tests."""
    folder, mark = tmp_path_factory.mktemp("containers"), secrets.token_hex(6)
    schema = f"test_{mark}"
    shared = {
        "RUNSTREAM_NATS_URL": nats_url,
        "RUNSTREAM_DATABASE_URL": database_url,
        "RUNSTREAM_NAMESPACE": f"test{mark}",
        "RUNSTREAM_DATABASE_SCHEMA": schema,
        "RUNSTREAM_OBJECTS_DIR": str(folder / "objects"),
        "RUNSTREAM_SECRETS_KEY_FILE": str(folder / "secrets.key"),
    }
    (folder / "secrets.key").write_bytes(base64.b64encode(secrets.token_bytes(32)))
    (folder / "secrets.key").chmod(0o600)
    found = Service(folder, _repository(folder / "repository"), shared, images)
    (folder / "settings.yml").write_text(retention())
    settings = _settings(shared, ENGINE=images.url, ACTIVE_TASKS_LIMIT="4")
    settings["RUNSTREAM_CONFIG"] = str(folder / "settings.yml")
    async with serving(folder / "service", **settings):
        yield found
    await drop_schema(database_url, schema)


def _repository(folder: Path) -> Path:
    """A repository with what the examples build and test."""
    folder.mkdir()
    (folder / "go.sum").write_text("example.com/module v1.0.0 h1:abc=\n")
    (folder / "Makefile").write_text(
        "build:\n\tmkdir -p bin\n\tprintf '#!/bin/sh\\necho version 1\\n' >bin/app\n\tchmod +x bin/app\n"
    )
    git = "git -c user.name=t -c user.email=t@example.com"
    script = f"git init -q -b main && git add . && {git} commit -q -m one && git tag v1.0.0 && chmod -R o+rX ."
    subprocess.run(["sh", "-ec", script], cwd=folder, check=True)
    return folder


def written(document: str, name: str) -> str:
    """The file that a document shows under this name."""
    (block,) = (each for each in blocks_of(ROOT / "docs" / document) if each.value("file") == name)
    return block.text


def retention() -> str:
    """The settings of the how-to about the disk."""
    (block,) = (each for each in blocks_of(ROOT / "docs/how-to/keep-the-disk-small.md") if each.what == "settings")
    return block.text


def example(name: str) -> str:
    """A file of docs/examples."""
    return (EXAMPLE_FILES / name).read_text()


def test_every_example_with_containers_is_one_that_a_test_here_runs() -> None:
    blocks = [
        block for block in all_blocks() if block.what == "file" and re.search(r"\bimage:|containers:", block.text)
    ]
    assert [block.value("file") for block in blocks] == ["services.yml", "private.yml"]
    assert len(containers_of_the_reference()) == 2
    ours = Path(__file__).read_text()
    assert [file.name for file in EXAMPLE_FILES.iterdir() if f'example("{file.name}")' not in ours] == []


async def test_services_of_the_documents_answer_and_their_logs_are_read(service: Service) -> None:
    await service.create("services.yml", written("how-to/services-and-registries.md", "services.yml"))
    run = "/project/services/branch/main/1"
    assert await service("log", "get", run, "pytest", "--step", "2") == "1 passed ()\n"
    log = await service("log", "get", run, "pytest", "--service", "1", "--follow")
    assert log == "database system is ready to accept connections\n"
    missing = await service("log", "get", run, "pytest", "--service", "2", status=1)
    assert "task 'pytest' has no service 2: it has 1, counted from 1" in missing


async def test_the_login_of_the_documents_pulls_an_image_of_a_private_registry(service: Service, private: str) -> None:
    config = written("how-to/services-and-registries.md", "private.yml").replace("ghcr.io", private)
    config = config.replace("run: make", "run: make --version").replace("builder\n", f"{LOGIN[0]}\n")
    await service.create("private.yml", config)
    setup = await service("log", "get", "/project/private/branch/main/1", "build", "--setup")
    assert f"Pulling {private}/example/builder:1 as {LOGIN[0]}." in setup
    wrong = config.replace("{from_variable: registry_password}", "wrong").replace("builder:1", "builder:2")
    await service.create("private.yml", wrong, status=1)
    setup = await service("log", "get", "/project/private/branch/main/2", "build", "--setup")
    assert f"image {private}/example/builder:2 cannot be pulled: " in setup
    assert f"(give a login for {private} in `docker_registries_auth`" in setup


async def test_the_cache_of_the_documents_is_missed_and_hit_in_containers(service: Service) -> None:
    config = written("how-to/caches.md", "cached.yml")
    assert config.count("runtime: {type: host}") == 1
    config = config.replace("{type: host}", '{containers: [{image: "python:3.12"}]}')
    first, second = [await service.create("cached.yml", config) for _ in range(2)]
    assert "no cache has a key" in first
    assert "cache hit: 'deps-linux-" in second
    command = "runstream run delete /project/web/12 /project/web/13"
    assert command in (ROOT / "docs" / "how-to" / "keep-the-disk-small.md").read_text()
    await service(*command.replace("web/12", "cached/1").replace("web/13", "cached/2").split()[1:], "--yes")
    assert "doesn't exist" in await service("log", "get", "/project/cached/1", "test", status=1)
    assert "cache" in await service("storage", "status")


def containers_of_the_reference() -> list[str]:
    """The examples of the reference of run configurations that have containers, as whole files."""
    found = [whole(kind, text) for kind, text in EXAMPLES if kind in ("file", "run", "task")]
    return [config for config in found if re.search(r"\bimage:", config)]


async def test_each_example_of_the_reference_with_containers_runs(service: Service) -> None:
    approved, database = containers_of_the_reference()
    programs = {f"{kind}.{'star' if kind == 'starlark' else kind}": text for kind, text in PROGRAMS}
    approved = approved.replace("builder", "ci").replace("run: make", "run: make --version")
    async with asyncio.TaskGroup() as group:
        for name, config in programs.items():
            group.create_task(service.create(name, config))
        group.create_task(service.create("database.yml", database))
        await service.create("approved.yml", approved, "--ref", "v1.0.0", follow=False)
        await service("run", "approve", "/project/approved/branch/main/1", "build")
        await service("run", "follow", "/project/approved/branch/main/1")
    assert "GNU Make" in await service("log", "get", "/project/approved/branch/main/1", "build")
    log = await service("log", "get", "/project/database/branch/main/1", "with a database", "--service", "1")
    assert log == "database system is ready to accept connections\n"


async def test_the_example_of_a_build_with_registry_logins_runs(service: Service, private: str) -> None:
    shown = await service.create("registry.yml", example("registry-build.yml").replace("registry.example.com", private))
    assert "version 1" in shown
    assert "restored" in shown


async def test_the_example_of_a_matrix_has_a_cache_for_each_entry(service: Service) -> None:
    first, second = [await service.create("matrix.jsonnet", example("matrix.jsonnet")) for _ in range(2)]
    assert first.count("downloaded") == 3
    assert second.count("nothing to download") == 3
    listed = await service("cache", "list", "--group", "/project/matrix")
    assert sorted(set(re.findall(r"go-1\.\d+", listed))) == ["go-1.23", "go-1.24", "go-1.25"]


async def test_the_example_of_a_task_with_three_services_reaches_each(service: Service) -> None:
    shown = await service.create("three.yml", example("services.yml"))
    assert "1 passed (tests/integration)" in shown
    run = "/project/three/branch/main/1"
    logs = [await service("log", "get", run, "integration tests", "--service", str(number)) for number in (1, 2, 3)]
    assert [log.partition(" ")[0] for log in logs] == ["database", "Ready", "API:"]


async def test_a_privileged_build_waits_for_an_executor_that_allows_it_and_whose_engine_can_be_reached(
    service: Service,
) -> None:
    run = "/project/image/branch/main/1"
    warned = await service.create("image.yml", example("image-build.yml"), follow=False)
    assert "does not allow privileged containers" in warned
    assert "does not allow privileged containers" in await service("run", "why", run)
    labels = {"LABELS": "site=builders"}
    async with service.executor("without-engine", **labels):
        await _why(service, run, "cannot run containers: it has no engine (executor.engine)")
    socket = service.folder / "engine.sock"
    async with service.executor("builder", ENGINE=f"unix://{socket}", ALLOW_PRIVILEGED_CONTAINERS="true", **labels):
        why = await _why(service, run, "unreachable")
        assert "cannot run containers now: its engine is unreachable (No such file or directory)" in why
        assert "unreachable: No such file or directory" in await service("executor", "list", "-o", "json")
        socket.symlink_to(service.engine.url.removeprefix("unix://"))
        if container_images.runs_privileged(service.engine):
            shown = await service("run", "follow", run)
            assert "built registry.example.com/app:1" in shown
        else:  # it is let through, and the machine refuses it
            await service("run", "follow", run, status=1)
            assert "cannot be started: " in await service("log", "get", run, "build and push", "--setup")


async def _why(service: Service, run: str, said: str) -> str:
    """Return why a run waits, as soon as an executor is known that says this."""
    while said not in (why := await service("run", "why", run)):
        pass
    return why
