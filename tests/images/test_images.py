"""The images of docker/, built by a real engine from Debian's packages and wheels: alone, and in compose.yml."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvloop

from runstream.client import Client, ClientError, Inputs, Run
from runstream.embedded.process import free_port
from tests.docker_engine import DockerEngine, missing
from tests.images.deployment import PARTS, SERVERS, TOKEN, Deployment, compose_program
from tests.service.running import runstream

TOP = Path(__file__).parents[2]
BASE = TOP / "build" / "images" / "base.tar"
LABEL = "runstream.io/"
SNAPSHOT = "everything.snapshot.tar"
MAX_BYTES = 250_000_000
HOST = """
runs:
  - name: hello
    tasks:
      - {name: one, runtime: {type: host}, steps: [{run: "id -un; git --version"}]}
"""
OF_ALONE = "runstream\ngit version 2.39.5\n"
PIPELINE = """
runs:
  - name: pipeline
    tasks:
      - name: build
        runtime:
          containers: [{image: "tiny:1"}, {image: "tiny:1", entrypoint: httpd -f -p 8080 -h /etc}]
        steps:
          - run: until wget -q -O page http://127.0.0.1:8080/passwd; do sleep 0.1; done; sleep 1
          - save_to_workspace: {contents: [{paths: [page]}]}
      - name: test
        runtime: {containers: [{image: "tiny:1"}]}
        depends: [build]
        steps:
          - restore_workspace: {dest_dir: .}
          - run: grep ci page
"""

pytestmark = [
    pytest.mark.images,
    pytest.mark.skipif(bool(missing()), reason=f"no container engine: {missing()}"),
    pytest.mark.skipif(not BASE.exists(), reason="no image to start from: make image-base"),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    with tempfile.TemporaryDirectory(prefix="runstream-images-") as folder:
        found = DockerEngine(Path(folder) / "e")
        uvloop.run(found.start())
        try:
            yield found
        finally:
            # Else those of a failed test outlive the engine, which is given seconds to end.
            if left := found.cli("ps", "-a", "--quiet").split():
                found.cli("rm", "--force", "--volumes", *left)
            uvloop.run(found.end_leftover())


@pytest.fixture(scope="module")
def images(engine: DockerEngine) -> DockerEngine:
    """The engine, with the images that `make images` builds without a network."""
    began = time.monotonic()
    engine.cli("import", str(BASE), "runstream-base")
    done = subprocess.run(
        ["make", "-s", "images", "IMAGE_BASE=runstream-base", "IMAGE_NETWORK=none"],
        cwd=TOP,
        env={**os.environ, "DOCKER_HOST": engine.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tell(f"built in {time.monotonic() - began:.0f} s")
    return engine


@pytest.mark.seconds(120)
async def test_one_container_serves_alone_as_an_ordinary_user(images: DockerEngine) -> None:
    size = int(images.cli("image", "inspect", "--format", "{{.Size}}", "runstream"))
    tell(f"image: {size / 1e6:.0f} MB")
    assert size < MAX_BYTES
    port = free_port("127.0.0.1")
    words = ("--network", "host", "-e", "RUNSTREAM_HOST=127.0.0.1", "-e", f"RUNSTREAM_PORT={port}")
    secret = ("-e", f"RUNSTREAM_TOKEN={TOKEN}")
    images.cli("run", "-d", "--init", "--name", "alone", *words, *secret, "-v", "alone:/var/lib/runstream", "runstream")
    async with client(f"http://127.0.0.1:{port}") as alone:
        run = await finished(alone, await create(alone, HOST, "first"))
        assert (run.result, await said(alone, run, "one", 0)) == ("success", OF_ALONE)
        began = time.monotonic()
        images.cli("stop", "--time", "30", "alone")
        tell(f"stopped in {time.monotonic() - began:.1f} s")
        assert images.cli("inspect", "--format", "{{.State.ExitCode}}", "alone") == "0"
        images.cli("start", "alone")
        health = ""
        while health in ("", "starting"):
            await asyncio.sleep(0.2)  # sleeps: until the engine has asked once
            health = images.cli("inspect", "--format", "{{.State.Health.Status}}", "alone")
        assert health == "healthy"
        assert await alone.runs.get(run.id) == run
        images.cli("exec", "alone", "runstream", "export", "-o", f"/tmp/{SNAPSHOT}", "--with", "logs,archives")
        images.cli("cp", f"alone:/tmp/{SNAPSHOT}", str(images.folder / SNAPSHOT))
    users = {line.split()[0] for line in images.cli("top", "alone", "-eo", "uid,pid,comm").splitlines()[1:]}
    assert users == {"10001"}
    images.cli("rm", "-f", "-v", "alone")


@pytest.mark.seconds(400)
@pytest.mark.skipif(not compose_program(), reason="no Docker Compose (apt-get install docker-compose)")
async def test_each_part_of_the_deployment_is_killed_once_and_nothing_is_lost(
    images: DockerEngine, tmp_path: Path
) -> None:
    deployment = Deployment(images, tmp_path)
    began = time.monotonic()
    try:
        await asyncio.to_thread(deployment.compose, "up", "--detach")
        async with client(deployment.gateways[0]) as one, client(deployment.gateways[1]) as two:
            await ready(one)
            await ready(two)
            tell(f"ready after {time.monotonic() - began:.0f} s")
            moving = time.monotonic()
            service = {"RUNSTREAM_URL": deployment.gateways[0], "RUNSTREAM_TOKEN": TOKEN}
            for words in (
                ("maintenance", "enable", "--service", "all", "--wait"),
                ("import", str(images.folder / SNAPSHOT)),
                ("maintenance", "disable", "--service", "all", "--wait"),
            ):
                code, out, err = await runstream(*words, **service)
                assert code == 0, (words, out, err)
            (moved,) = [each async for each in two.runs.list()]
            assert await said(two, await two.runs.get(moved.id), "one", 0) == OF_ALONE
            tell(f"the data of one container moved in {time.monotonic() - moving:.0f} s")
            run = await finished(one, await create(one, PIPELINE, "before"))
            assert run.result == "success", await one.runs.failures(run.id)
            assert await said(two, run, "test", 1) == "ci:x:1000:1000:ci:/home/ci:/bin/sh\n"
            acknowledged = [moved.id, run.id]
            for number, part in enumerate(PARTS):
                left = two if part == "gateway-1" else one
                acknowledged += [(await create(left, PIPELINE, f"{part}-{each}")).id for each in range(2)]
                killed = time.monotonic()
                await deployment.kill(part)
                after = await create(left, PIPELINE, f"{part}-after")
                created = time.monotonic() - killed
                acknowledged.append(after.id)
                after = await finished(two if number % 2 else one, after)
                tell(
                    f"{part}: next run created {created:.1f} s, ended {time.monotonic() - killed:.1f} s after the kill"
                )
            runs = [await finished(one, await one.runs.get(each)) for each in acknowledged]
            failed = [run for run in runs if run.result != "success"]
            tell(f"{len(runs)} runs acknowledged, {len(runs) - len(failed)} succeeded, {len(failed)} failed")
            # Tasks that ran on a killed executor, and no others.
            for run in failed:
                assert "xecutor" in str(run), run
            assert len(failed) <= 2 * 4
            for run in runs:
                if run.result == "success" and run.id != moved.id:
                    assert await said(one, run, "test", 1) == "ci:x:1000:1000:ci:/home/ci:/bin/sh\n"
            assert len([each async for each in two.runs.list()]) == len(acknowledged)
        tell(images.cli("exec", deployment.container("gateway-1"), "runstream", "fsck"))
        # What killed executors left was removed when they started again.
        assert [each for each in images.cli("ps", "-a", "--format", "{{.Labels}}").splitlines() if LABEL in each] == []
        ours = [part for part in PARTS if not part.startswith(SERVERS)]
        containers = {part: deployment.container(part) for part in ours}
        await asyncio.to_thread(deployment.compose, "stop", *ours)
        codes = {part: deployment.state(containers[part])["State"]["ExitCode"] for part in ours}
        assert codes == dict.fromkeys(ours, 0)
        tell(f"all in {time.monotonic() - began:.0f} s")
    except BaseException:
        for part in PARTS:
            tell(f"== {part}\n{deployment.logs(part)}")
        raise
    finally:
        await asyncio.to_thread(deployment.compose, "down", "--volumes", "--timeout", "2")


def tell(text: str) -> None:
    """Print a figure; `make test-images` shows them."""
    sys.stdout.write(f"{text}\n")


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    async with Client(url, token=TOKEN, wait_seconds=60) as made:
        yield made


async def ready(client: Client) -> None:
    """Wait until a gateway answers, and an executor is there."""
    while True:
        with contextlib.suppress(ClientError):
            if any(each.allow_pod and each.state == "ready" for each in await client.executors.list()):
                return
        await asyncio.sleep(0.2)  # sleeps: between two requests


async def create(client: Client, config: str, name: str) -> Run:
    """Create a run, in a group of its own, and again until it is acknowledged: the key makes it the same one."""
    while True:
        try:
            created = await client.runs.create_from_config(
                Inputs(config), group=f"/project/web/branch/{name}", idempotency_key=name
            )
        except ClientError as error:
            if error.kind not in ("internal", "connection"):
                raise
            await asyncio.sleep(0.2)  # sleeps: between two requests
        else:
            return next(iter(created))


async def finished(client: Client, run: Run) -> Run:
    """Return the run when it has ended."""
    while not run.finished:
        await asyncio.sleep(0.1)  # sleeps: between two requests
        try:
            run = await client.runs.get(run.id)
        except ClientError as error:
            if error.kind == "not-exist":
                raise
    return run


async def said(client: Client, run: Run, name: str, step: int) -> str:
    """Return the log of a step."""
    task = run.task(name)
    assert task is not None
    return (await client.logs.get(run.id, task.id, step)).decode()
