"""Images that are pulled from a registry, with and without a login."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from runstream.errors import BadRequestError
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import RegistryAuth
from runstream.executor.drivers.registries import HUB, login_for, registry_of, tagged
from runstream.executor.spec import Login
from tests.docker_engine import DockerEngine, needs_engine
from tests.executor.rig import CONTAINERS, SETTINGS, Rig, Watched, pod, rig, run_step, task_of
from tests.registry import LOGIN, registry

ENCODED = base64.b64encode(":".join(LOGIN).encode()).decode()


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("alpine", HUB),
        ("library/alpine:3", HUB),
        ("docker.io/library/alpine", HUB),
        ("localhost/x", "localhost"),
        ("registry:5000/x:1", "registry:5000"),
        ("ghcr.io/a/b@sha256:00", "ghcr.io"),
    ],
)
def test_the_registry_of_an_image(image: str, found: str) -> None:
    assert registry_of(image) == found


def test_an_image_without_a_tag_is_the_latest() -> None:
    assert [tagged(image) for image in ("a", "r:5000/a", "a:1", "a@sha256:0")] == [
        "a:latest",
        "r:5000/a:latest",
        "a:1",
        "a@sha256:0",
    ]


@pytest.mark.parametrize("form", ["%s", "https://%s", "http://%s", "https://%s/v1/", "http://%s/v1/", "https://%s/v2/"])
@pytest.mark.parametrize("login", [Login("basic", *LOGIN), Login("encodedauth", auth=ENCODED)], ids=["basic", "auth"])
def test_a_login_is_found_by_each_form_of_its_registry(form: str, login: Login) -> None:
    assert login_for("ghcr.io/a/b", {form % "ghcr.io": login}) == LOGIN
    assert login_for("alpine", {form % "ghcr.io": login}) is None


@given(st.text(max_size=20))
def test_a_malformed_login_is_an_error_and_never_an_empty_one(auth: str) -> None:
    with contextlib.suppress(BadRequestError):
        found = login_for("a", {HUB: Login("encodedauth", auth=auth)})
        assert found is not None
        assert base64.b64decode(auth).decode() == ":".join(found)


def test_a_login_of_an_unknown_type_is_an_error() -> None:
    with pytest.raises(BadRequestError, match="unknown type 'token'"):
        login_for("a", {HUB: Login("token")})


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a registry."""
    with registry() as found:
        yield found


@pytest.fixture(scope="module")
def private() -> Iterator[str]:
    """The address of a registry that asks for a login."""
    with registry(private=True) as found:
        yield found


@pytest.fixture
def setup_seconds() -> float:
    """The maximum time of a setup."""
    return 60.0


@pytest.fixture
async def running(tmp_path: Path, docker_engine: DockerEngine, setup_seconds: float) -> AsyncIterator[Rig]:
    """An executor that pulls each image for each task."""
    always = CONTAINERS | {"pull_policy": "always"}
    settings = replace(SETTINGS, engine=docker_engine.url, setup_seconds=setup_seconds, **always)
    async with rig(tmp_path, settings=settings) as found:
        yield found


async def _pulled(running: Rig, image: str, *logins: RegistryAuth) -> Watched:
    task = task_of("task", run_step("echo $OF_IMAGE"), runtime=pod(image))
    registries = {registry_of(image): login for login in logins}
    watched = await running.assign(structs.replace(task, docker_registries_auth=registries))
    await watched.settled()
    return watched


@needs_engine
@pytest.mark.parametrize(
    "login", [RegistryAuth("basic", *LOGIN, ""), RegistryAuth("encodedauth", "", "", ENCODED)], ids=["basic", "auth"]
)
async def test_an_image_is_pulled_with_its_login_and_the_progress_is_in_the_log_of_the_setup(
    running: Rig, private: str, login: RegistryAuth
) -> None:
    done = await _pulled(running, f"{private}/some/{login.type}:1", login)
    setup = await done.log(None)
    assert done.task.phase is ExecutorTaskPhase.SUCCESS, setup
    assert await done.log(0) == "pulled\n"
    assert f"Pulling {private}/some/{login.type}:1 as user." in setup
    assert "Status: Downloaded newer image" in setup
    assert "pass:word" not in setup


@needs_engine
@pytest.mark.parametrize(
    ("image", "setup_seconds", "said"),
    [
        ("broken/a:1", 60.0, "cannot be pulled: "),
        ("absent/a:1", 60.0, "check its name and tag"),
        ("other/a:1", 60.0, "is for arm64, not for amd64"),
        ("hang/a:1", 1.0, "it took longer than 1 second (executor.setup_seconds)"),
    ],
)
async def test_what_cannot_be_pulled_says_why_and_leaves_nothing(
    running: Rig, docker_engine: DockerEngine, address: str, image: str, said: str
) -> None:
    done = await _pulled(running, f"{address}/{image}")
    assert said in await done.log(None)
    assert done.task.phase is ExecutorTaskPhase.FAILED
    assert docker_engine.containers(executorid=running.executor_id) == []


@needs_engine
async def test_a_wrong_login_is_refused_although_the_engine_has_the_image(running: Rig, private: str) -> None:
    image = f"{private}/some/twice:1"
    assert (await _pulled(running, image, RegistryAuth("basic", *LOGIN, ""))).task.phase is ExecutorTaskPhase.SUCCESS
    for logins in ((RegistryAuth("basic", "user", "wrong", ""),), ()):
        done = await _pulled(running, image, *logins)
        assert f"image {image} cannot be pulled: " in await done.log(None)
        assert "(give a login for 127.0.0.1:" in await done.log(None)


@needs_engine
async def test_an_executor_that_never_pulls_says_how_an_image_gets_there(
    tmp_path: Path, docker_engine: DockerEngine, address: str
) -> None:
    settings = replace(SETTINGS, engine=docker_engine.url, **CONTAINERS | {"pull_policy": "never"})
    async with rig(tmp_path, settings=settings) as found:
        done = await _pulled(found, f"{address}/some/image:1")
        assert "which pulls none (executor.pull_policy is `never`)" in await done.log(None)
