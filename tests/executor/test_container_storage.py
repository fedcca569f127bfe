"""Workspaces and caches of containers, in an object storage that fails or holds hostile archives."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import httpx2
import psutil
import pytest
from obstore.store import S3Store

from runstream.codec import zstd
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import SaveContent, Step
from runstream.ids import new_id
from runstream.objects.caches import StoredCaches
from runstream.objects.s3 import S3Objects
from tests.docker_engine import IMAGE, DockerEngine, needs_engine
from tests.executor.rig import CONTAINERS, SETTINGS, Rig, Watched, config_of, pod, rig, run_step, save_step, task_of
from tests.objects.backends import KEYS, open_at, s3_location
from tests.objects.faulty import Cut, Fault, Proxy, Refuse, Request, faulty

pytestmark = needs_engine

LARGE = 9 << 20
"""Size of a file that is sent in parts, in bytes."""
FOLDERS = ("workspacearchives/", "caches/")
SAVE_CACHE = Step(type="save_cache", key="key", contents=(SaveContent("", "", ("file",)),))
RESTORE_CACHE = Step(type="restore_cache", keys=("key",))
RESTORE = Step(type="restore_workspace")
GROUP = "/project/p"
"""The group of the caches of a task of the rig."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An executor with an engine, and objects in a bucket behind a proxy."""

    rig: Rig
    proxy: Proxy
    bucket: str
    engine: DockerEngine
    children: set[psutil.Process]

    async def run(self, *steps: Step) -> Watched:
        """Run a task with these steps, then one that restores what it saved; return the last one that began."""
        make = task_of("make", *steps, runtime=pod(IMAGE))
        use = task_of("use", RESTORE, runtime=pod(IMAGE), depends=("make",), level=1)
        config, run_id = config_of(make, use), new_id()
        done = await self.rig.assign(make, config=config, run_id=run_id)
        await done.settled()
        if done.task.phase is ExecutorTaskPhase.SUCCESS and any(step.type == "save_to_workspace" for step in steps):
            done = await self.rig.assign(use, config=config, run_id=run_id)
            await done.settled()
        return done

    async def nothing_is_left(self, done: Watched, *, objects: int = 0) -> None:
        """Check containers, processes, files, uploads and objects of a task."""
        assert self.rig.executor is not None
        await self.rig.executor.stop()
        assert not self.rig.task_folder(done).exists()
        assert set(psutil.Process().children()) == self.children
        assert self.engine.containers(executorid=self.rig.executor_id) == []
        async with httpx2.AsyncClient() as http:
            assert "<Upload>" not in (await http.get(f"{self.proxy.server}/{self.bucket}?uploads")).text
        self.proxy.decide = _never
        found = [one.path for folder in FOLDERS async for one in self.rig.objects.list(folder)]
        assert len([path for path in found if path.endswith(".tar")]) == objects, found


@pytest.fixture
async def stored(tmp_path: Path, docker_engine: DockerEngine, s3_url: str, namespace: str) -> AsyncIterator[Stored]:
    """The same."""
    settings = replace(SETTINGS, engine=docker_engine.url, stop_grace_seconds=0.5, **CONTAINERS)
    async with faulty(s3_url) as proxy:
        opened = await open_at(s3_location(proxy.url, namespace))
        location = opened.location
        store = S3Store(
            location.bucket,
            prefix=location.prefix.rstrip("/"),
            config={"endpoint": proxy.url, "region": "eu-central-1"},
            client_options={"allow_http": True},
            retry_config={"max_retries": 6, "backoff": {"init_backoff": timedelta(milliseconds=1)}},
            credential_provider=KEYS,
        )
        async with rig(tmp_path / "executor", settings=settings, objects=S3Objects(location, store)) as found:
            yield Stored(found, proxy, namespace, docker_engine, set(psutil.Process().children()))


async def _never(_: Request) -> Fault:
    return None


def _faults(method: str, fault: Fault, count: int = 1 << 30) -> Callable[[Request], Awaitable[Fault]]:
    """This fault for the next requests of a method that are about archives and caches."""
    left = iter(range(count))

    async def decide(request: Request) -> Fault:
        about = request.method == method and any(folder in request.target for folder in FOLDERS)
        return fault if about and next(left, None) is not None else None

    return decide


async def _hang_up(request: Request) -> Fault:
    if request.method in ("PUT", "POST") and any(folder in request.target for folder in FOLDERS):
        raise ConnectionResetError
    return None


MAKE = run_step(f"head -c {LARGE} /dev/urandom >file")


async def test_errors_and_slow_answers_that_pass_do_not_fail_a_step(stored: Stored) -> None:
    refused = (Refuse(500, "InternalError"), Refuse(503, "SlowDown"))
    faults: dict[str, list[Fault]] = {
        "PUT": [*refused, *refused],
        "GET": [*refused, Cut(LARGE // 2), Cut(LARGE // 4)],
        "POST": [*refused],
    }

    async def decide(request: Request) -> Fault:
        if not any(folder in request.target for folder in FOLDERS):
            return None
        if left := faults.get(request.method):
            return left.pop()
        await asyncio.sleep(0.1)  # sleeps: the answer is slow
        return None

    stored.proxy.decide = decide
    compare = run_step("cmp file saved")
    done = await stored.run(MAKE, SAVE_CACHE, run_step("mv file saved"), RESTORE_CACHE, compare, save_step("file"))
    assert done.task.phase is ExecutorTaskPhase.SUCCESS, done.task
    assert done.task.task == "use"
    assert not any(faults.values())
    await stored.nothing_is_left(done, objects=2)


@pytest.mark.parametrize(
    ("decide", "said", "save", "size"),
    [
        (_faults("PUT", Refuse(500, "InternalError")), "an error: InternalError as the test wants", SAVE_CACHE, 10),
        (_faults("PUT", Refuse(503, "SlowDown")), "an error: SlowDown as the test wants", SAVE_CACHE, LARGE),
        (_hang_up, "cannot be reached: ", save_step("file"), 10),
        (_faults("PUT", Refuse(500, "InternalError")), "InternalError as the test wants", save_step("file"), LARGE),
        (_faults("POST", Refuse(503, "SlowDown")), "SlowDown as the test wants", save_step("file"), LARGE),
    ],
    ids=["500, cache", "503, large cache", "no answer, workspace", "500, large workspace", "503 for uploads"],
)
async def test_a_save_that_fails_says_why_and_stores_nothing(
    stored: Stored, decide: Callable[[Request], Awaitable[Fault]], said: str, save: Step, size: int
) -> None:
    stored.proxy.decide = decide
    done = await stored.run(run_step(f"head -c {size} /dev/urandom >file"), save, run_step("true"))
    assert [step.phase for step in done.task.steps][1:] == [ExecutorTaskPhase.FAILED, ExecutorTaskPhase.NOT_STARTED]
    log = await done.log(1)
    assert said in log
    assert "the object storage s3://" in log
    assert "saved" not in log
    await stored.nothing_is_left(done)


@pytest.mark.parametrize("restore", [RESTORE_CACHE, RESTORE], ids=["cache", "workspace"])
async def test_a_restore_that_fails_in_the_middle_says_why(stored: Stored, restore: Step) -> None:
    if restore is RESTORE_CACHE:
        made = await stored.rig.run(MAKE, SAVE_CACHE, runtime=pod(IMAGE))
        assert made.task.phase is ExecutorTaskPhase.SUCCESS
    begun = False

    async def decide(request: Request) -> Fault:
        nonlocal begun
        if request.method != "GET" or ".tar" not in request.target:
            return None
        first, begun = not begun, True
        return Cut(LARGE // 2) if first else Refuse(500, "InternalError")

    stored.proxy.decide = decide
    steps = (RESTORE_CACHE, run_step("true")) if restore is RESTORE_CACHE else (MAKE, save_step("file"))
    done = await stored.run(*steps)
    assert done.task.steps[0].phase is ExecutorTaskPhase.FAILED
    assert "answers with an error: InternalError as the test wants" in await done.log(0)
    await stored.nothing_is_left(done, objects=1)


def _entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


HOSTILE: dict[str, tuple[list[tarfile.TarInfo], str]] = {
    "above": ([_entry("../out")], "'../out'"),
    "absolute": ([_entry("/out")], "'/out'"),
    "through a link": ([_entry("link", tarfile.SYMTYPE, "/tmp"), _entry("link/out")], "passes through a link"),
    "hard link out": ([_entry("hard", tarfile.LNKTYPE, "/etc/passwd")], "'/etc/passwd'"),
}


async def test_a_hostile_archive_is_refused_by_name_and_writes_nothing_elsewhere(
    tmp_path: Path, docker_engine: DockerEngine
) -> None:
    settings = replace(SETTINGS, engine=docker_engine.url, stop_grace_seconds=0.5, **CONTAINERS)
    async with rig(tmp_path / "executor", settings=settings) as running:
        for kind, (entries, _) in HOSTILE.items():
            archive = tmp_path / "archive"
            archive.write_bytes(_compressed(entries))
            assert await StoredCaches(running.objects).create(GROUP, kind, archive)
            archive.unlink()
        for kind, (_, said) in HOSTILE.items():
            done = await running.run(Step(type="restore_cache", keys=(kind,)), runtime=pod(IMAGE))
            assert done.task.phase is ExecutorTaskPhase.FAILED
            assert said in await done.log(0)
        # A device is restored as an empty file.
        archive.write_bytes(_compressed([_entry("device", tarfile.CHRTYPE)]))
        assert await StoredCaches(running.objects).create(GROUP, "device", archive)
        show = run_step("[ -f device ] && ! [ -s device ]")
        done = await running.run(Step(type="restore_cache", keys=("device",)), show, runtime=pod(IMAGE))
        assert done.task.phase is ExecutorTaskPhase.SUCCESS
        assert running.executor is not None
        await running.executor.stop()
        assert docker_engine.containers(executorid=running.executor_id) == []


def _compressed(entries: list[tarfile.TarInfo]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for entry in entries:
            tar.addfile(entry)
    return zstd.compress(target.getvalue())


async def test_a_restore_whose_tar_ends_before_the_archive_fails(tmp_path: Path, docker_engine: DockerEngine) -> None:
    settings = replace(SETTINGS, engine=docker_engine.url, stop_grace_seconds=0.5, **CONTAINERS)
    make = run_step("head -c 8388608 /dev/urandom >file; mkdir closed; chmod 555 closed")
    restore = Step(type="restore_cache", keys=("key",), dest_dir="closed")
    async with rig(tmp_path, settings=settings) as running:
        done = await running.run(make, SAVE_CACHE, restore, runtime=pod(IMAGE, user="1000"))
        assert done.task.steps[2].phase is ExecutorTaskPhase.FAILED
        assert "the files cannot be written: tar: " in await done.log(2)
