"""An executor on a log, and a test double of the scheduler that assigns tasks and waits for their outcomes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from nats.aio.client import Client as Nats

from runstream.codec import decode
from runstream.commits import Head, StoredCommit
from runstream.domain import executor_task as executor_tasks
from runstream.domain.executor_task import ExecutorTask
from runstream.errors import NotExistError
from runstream.events.executor_task import ExecutorTaskEvent
from runstream.events.run_config import (
    Container,
    Depend,
    RunConfig,
    RunConfigStored,
    RunConfigTask,
    Runtime,
    SaveContent,
    Step,
)
from runstream.executor.drivers.port import Driver
from runstream.executor.executor import TaskExecutor, make_driver
from runstream.executor.pod_task import RunnerContext
from runstream.executor.presence import Leases
from runstream.executor.reporter import Clock
from runstream.executor.runner import PodRunner
from runstream.executor.spec import Specs
from runstream.executor.task import Runner
from runstream.executor.workdir import ExecutorPlace
from runstream.ids import attempt_id, content_hash, executor_task_id, new_id, run_task_id
from runstream.log.port import Log
from runstream.objects import ObjectStorage, PosixObjects, paths
from runstream.objects.port import chunks
from runstream.sealing import Keyring
from runstream.settings import ExecutorSettings, Settings
from runstream.steplogs.live import LiveLogs
from runstream.subjects import Address
from tests.factories import task_assigned
from tests.log.memory import MemoryLog

HOST = Runtime("host", "", ())


def pod(image: str, *services: Container, **fields: object) -> Runtime:
    """The runtime of a task with containers."""
    return Runtime("pod", "", (container(image, **fields), *services))


def container(image: str, **fields: object) -> Container:
    """A container of this image."""
    given: dict[str, object] = {"environment": {}, "user": "", "privileged": False, "entrypoint": "", "volumes": ()}
    return Container(image=image, **(given | fields))  # type: ignore[arg-type]


class FakeLease:
    """A lease that lasts until the test ends it."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.touched = 0
        self.touching = asyncio.Event()

    @property
    def trusted(self) -> bool:
        return self.held.is_set()

    def touch(self) -> None:
        self.touched += 1
        self.touching.set()

    async def run(self) -> None:
        self.held.set()
        try:
            await asyncio.shield(self.lost)
        finally:
            self.held.clear()
            self.lost = asyncio.get_running_loop().create_future()


class FakeLeases:
    """Gives one lease."""

    def __init__(self) -> None:
        self.value: Callable[[], bytes] = bytes
        self.renewed: Callable[[float], None] = lambda _until: None
        self.given = FakeLease()

    def lease(self, key: str, value: Callable[[], bytes], renewed: Callable[[float], None]) -> FakeLease:
        self.value = value
        self.renewed = renewed
        return self.given


def run_step(command: str, *, tty: bool = False, **fields: object) -> Step:
    return Step(type="run", name="run", command=command, tty=tty, **fields)  # type: ignore[arg-type]


def save_step(*selected: str, source_dir: str = "", dest_dir: str = "") -> Step:
    return Step(type="save_to_workspace", contents=(SaveContent(source_dir, dest_dir, selected),))


def task_of(
    name: str,
    *steps: Step,
    depends: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    working_dir: str = "",
    runtime: Runtime = HOST,
    level: int = 0,
    user: str = "",
) -> RunConfigTask:
    return RunConfigTask(
        name=name,
        level=level,
        depends=tuple(Depend(parent, ("on_success",)) for parent in depends),
        runtime=runtime,
        environment=environment or {},
        working_dir=working_dir,
        shell="",
        user=user,
        steps=steps,
        ignore_failure=False,
        skip=False,
        needs_approval=False,
        docker_registries_auth={},
        task_timeout_interval=0,
    )


def config_of(*tasks: RunConfigTask, static: dict[str, str] | None = None) -> RunConfig:
    return RunConfig("test", {task.name: task for task in tasks}, static or {}, {}, "")


@dataclass(slots=True)
class Watched:
    """One executor task, as the log says it."""

    rig: Rig
    address: Address
    task: ExecutorTask
    head: Head
    run_task_id: str
    history: list[StoredCommit] = field(default_factory=list)

    async def until(self, reached: Callable[[ExecutorTask], bool]) -> ExecutorTask:
        """Wait for the log to say so."""
        log = self.rig.log
        filters = [log.subjects.of(self.address)]
        async with log.read(self.address.partition, self.head.sequence, filters=filters) as reader:
            while not reached(self.task):
                for message in await reader.next_batch(1):
                    self.apply(decode(message))
        return self.task

    async def ended(self) -> ExecutorTask:
        return await self.until(lambda task: not task.open)

    async def settled(self) -> ExecutorTask:
        return await self.until(lambda task: task.settled)

    async def step_begun(self, step: int = 0) -> ExecutorTask:
        return await self.until(lambda task: task.steps[step].start_time is not None)

    def apply(self, stored: StoredCommit) -> None:
        self.history.append(stored)
        for event in cast("tuple[ExecutorTaskEvent, ...]", stored.commit.events):
            self.task = executor_tasks.evolve(self.task, event)
        self.head = Head(stored.commit.version, stored.position.sequence)

    async def say(self, *events: ExecutorTaskEvent) -> None:
        """Append as the scheduler does."""
        last = await self.rig.log.last(self.address)
        assert last is not None
        head = Head(last.commit.version, last.position.sequence)
        await self.rig.log.append(head.next_commit(self.address, events, time=datetime.now(UTC), actor="scheduler"))

    async def log(self, step: int | None = 0) -> str:
        """The stored log."""
        stored = attempt_id(self.run_task_id, self.task.attempt)
        return (await self.rig.stored(paths.step_log(stored, step))).decode()

    async def commits(self) -> int:
        """How many commits it has."""
        return len(await self.rig.log.history(self.address))


@dataclass(slots=True)
class Rig:
    """The executor, the log and the objects of a test."""

    log: Log
    objects: ObjectStorage
    folder: Path
    executor_id: str
    leases: FakeLeases
    executor: TaskExecutor | None = None

    async def assign(
        self,
        task: RunConfigTask,
        *,
        config: RunConfig | None = None,
        run_id: str | None = None,
        trace: str = "",
        workspaces: dict[str, str] | None = None,
        attempt: int = 1,
        timeout: int = 0,
        executor_id: str = "",
    ) -> Watched:
        """Give a task to the executor, or to another one that is not here."""
        executor_id = executor_id or self.executor_id
        config = config or config_of(task)
        run_id = run_id or new_id()
        digest = content_hash(repr(config).encode())
        partition = int(run_id[:8], 16) % self.log.partitions
        stored = Address(partition, "runconfig", digest)
        if await self.log.last(stored) is None:
            commit = Head().next_commit(stored, (RunConfigStored(config),), time=datetime.now(UTC), actor="test")
            await self.log.append(commit)
        run_task = run_task_id(run_id, task.name)
        address = Address(partition, "task", executor_task_id(run_id, run_task, attempt), executor_id)
        event = task_assigned(
            executor_id,
            run_id,
            run_task,
            task=task.name,
            run_config=digest,
            counter=7,
            steps=len(task.steps),
            timeout=timeout,
            attempt=attempt,
            workspaces=workspaces or {},
        )
        assignment = Head().next_commit(address, (event,), time=datetime.now(UTC), actor="scheduler", trace=trace)
        position = await self.log.append(assignment)
        assigned = executor_tasks.assigned(address.id, event)
        return Watched(self, address, assigned, Head(1, position.sequence), run_task)

    async def run(self, *steps: Step, **fields: object) -> Watched:
        """Run a task with these steps and wait until its logs and archives are stored."""
        watched = await self.assign(task_of("task", *steps, **fields))  # type: ignore[arg-type]
        await watched.settled()
        return watched

    async def stored(self, path: str) -> bytes:
        async with await self.objects.read(path) as reader:
            return b"".join([chunk async for chunk in chunks(reader)])

    async def is_stored(self, path: str) -> bool:
        try:
            await self.objects.stat(path)
        except NotExistError:
            return False
        return True

    def task_folder(self, watched: Watched) -> Path:
        return self.folder / "executor" / "tasks" / watched.address.id


def _now() -> datetime:
    return datetime.now(UTC)


KEYRING = Keyring.of([bytes(32)])
SETTINGS = ExecutorSettings(active_tasks_limit=2, sandbox="off", stop_grace_seconds=5.0)


@contextlib.asynccontextmanager
async def rig(
    folder: Path,
    *,
    log: Log | None = None,
    nats: Nats | None = None,
    namespace: str = "",
    settings: ExecutorSettings = SETTINGS,
    objects: ObjectStorage | None = None,
    runner: Runner | None = None,
    driver: Driver | None = None,
    start: bool = True,
    clock: Clock | None = None,
    leases: Leases | None = None,
) -> AsyncIterator[Rig]:
    """Yield an executor in this folder; it is started unless `start` is False. Without `leases` it has a fake one."""
    log = log or MemoryLog()
    objects = objects or PosixObjects(folder / "objects")
    place = ExecutorPlace(folder)
    fake = FakeLeases()
    live = LiveLogs(nats, namespace) if nats is not None else None
    driver = driver or make_driver(Settings(data_dir=folder, executor=settings), place)
    context = RunnerContext(
        *(driver, log, objects, live, Specs(log, KEYRING), place.disk_reserve),
        stop_grace_seconds=settings.stop_grace_seconds,
        setup_seconds=settings.setup_seconds,
        step_log_bytes=settings.step_log_bytes,
        task_disk_bytes=settings.task_disk_bytes,
    )
    executor = TaskExecutor(
        place, settings, log, leases or fake, runner or PodRunner(context, place.tasks), live, clock or _now
    )
    try:
        if start:
            await executor.start()
        yield Rig(log, objects, folder, executor.id, fake, executor)
    finally:
        await executor.stop()


CONTAINERS: dict[str, Any] = {"pull_policy": "missing", "pod_network": "none"}
"""Settings for the engine of tests, which has no bridge; its images are from no registry."""


def limited(count: int) -> ExecutorSettings:
    return replace(SETTINGS, active_tasks_limit=count)
