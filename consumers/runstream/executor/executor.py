"""The executor: runs the tasks that the log assigns to it, and reports with events.

    for each partition: read the commits of its tasks -> fold -> take up what is new, end what is to end

At most `active_tasks_limit` tasks run at once; the others wait here, and can still be stopped. After a restart no task
is started a second time: running tasks have failed, and the others start.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from nats.aio.client import Client as Nats

from runstream.commits import Head, Position, StoredCommit
from runstream.errors import BadRequestError
from runstream.events.executor_task import ExecutorTaskAssigned, ExecutorTaskPhase
from runstream.executor.drivers.by_runtime import ByRuntime
from runstream.executor.drivers.docker.driver import DockerDriver, DockerRules
from runstream.executor.drivers.noop import NoopRunner
from runstream.executor.drivers.port import Driver
from runstream.executor.drivers.process import HostRules, ProcessDriver
from runstream.executor.limits import Limits
from runstream.executor.pod_task import RunnerContext
from runstream.executor.presence import Leases, Presence
from runstream.executor.reporter import Clock, KnownTask, decoded
from runstream.executor.runner import PodRunner
from runstream.executor.sandbox import Visible
from runstream.executor.spec import Specs
from runstream.executor.task import EndReason, Execution, HeldTask, Runner, Stage
from runstream.executor.workdir import ExecutorPlace, disk_shortage
from runstream.folding import UnfitCommitError, fold_executor_task
from runstream.lifecycle import BackgroundTasks, Component, only_asked_cancellation
from runstream.log.port import Log, RawMessage
from runstream.objects import ObjectStorage
from runstream.open_files import FILES_OF_A_TASK, out_of_files, spare_files, too_many_open_files
from runstream.sealing import Keyring
from runstream.settings import ExecutorSettings, Settings
from runstream.steplogs.live import LiveLogs
from runstream.subjects import Address, aggregate_of, partition_of
from runstream.telemetry.metrics import FINISHED_TASKS, RUNNING_TASKS

ROOM_SECONDS = 1.0
"""Interval between checks of the disk, in seconds."""
_KEEP_SECONDS = 2.0
"""Interval between writes of the read positions, in seconds."""
_END_SECONDS = 6.0
"""Maximum time for tasks to end when the executor stops, in seconds."""
_DEADLINE_SECONDS = 20.0
"""The same after the deadline of a maintenance, in seconds: between TERM and KILL, and to report and store."""

log = structlog.get_logger()


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(eq=False)
class TaskExecutor(Component):
    """An executor; made by `make_executor`."""

    name = "executor"
    place: ExecutorPlace
    settings: ExecutorSettings
    log: Log
    leases: Leases
    runner: Runner
    live: LiveLogs | None = None
    """Started and stopped with the executor."""
    clock: Clock = _now

    def __post_init__(self) -> None:
        super().__init__()
        self.id = self.place.identity(self.settings.id)
        self._table = TaskTable()
        self._origins: dict[int, str] = {}
        self._queue: deque[HeldTask] = deque()
        self._active = 0
        self._spare_files = spare_files()
        """Free file descriptors for new tasks: those at the last look, less the ones for tasks that began since."""
        self._begun = 0
        """Tasks that began since the last look and have not ended."""
        self._draining = False
        self._executions: dict[str, Execution] = {}
        self._works: set[asyncio.Task[None]] = set()
        self._reading = 0
        self._caught_up = asyncio.Event()
        self._looking = False
        """True once the previous process's leftovers are cleaned up, so that tasks may start."""
        self._changed = asyncio.Event()
        self._presence = Presence(
            Address(partition_of(self.id, self.log.partitions), "executor", self.id),
            *(self.settings, self.log, self.leases, self.runner.capabilities),
            open_tasks=self._table.open_tasks,
            end_tasks=self._end_tasks,
            on_held=self._fill,
            clock=self.clock,
        )

    async def run(self) -> None:
        """Serve until `stopping` is set; then end the running tasks, release the lease, and return."""
        with self.place.locked():
            try:
                await self.runner.setup()
                self.place.note_sandbox(self.runner.capabilities.sandbox)
                await self._serve()
            finally:
                await self.runner.close()

    async def _serve(self) -> None:
        after = await self._start_positions()
        if self.live is not None:
            await self.live.start()
        try:
            async with BackgroundTasks() as background:
                for part in self._parts(after):
                    background.keep(part)
                await self._begin()
                await self.stopping.wait()
                await self._end()
        finally:
            await self._cancel_running()
            self.place.keep_positions(self.log.epoch, self._table.positions(), self._origins)
            if self.live is not None:
                await self.live.stop()

    @property
    def sandbox_problem(self) -> str:
        """Return why tasks run without a sandbox; empty if they have one, or run no processes."""
        state = self.runner.capabilities.sandbox
        return "" if state == "sandboxed" or state.startswith("none") else state

    async def drain(self, seconds: float | None) -> None:
        """Start no more tasks, and return when none runs; after `seconds`, end those that still run."""
        self._draining = True
        self._fill()
        try:
            async with asyncio.timeout(seconds):
                while self._works:
                    await asyncio.wait(self._works)
        except TimeoutError:
            log.warning(
                "ending the running tasks: the deadline of the maintenance has passed",
                action="tasks_ended",
                executor=self.id,
            )
            self._end_tasks(EndReason.MAINTENANCE)
            if self._works:
                await asyncio.wait(self._works, timeout=_DEADLINE_SECONDS)
        except asyncio.CancelledError:
            self._draining = False
            self._fill()
            raise

    @property
    def under_way(self) -> int:
        """Number of tasks that are not settled."""
        return len(self._works)

    def positions(self) -> dict[int, int]:
        """Return the sequence of each partition after which a restart reads."""
        return self._table.positions()

    async def _start_positions(self) -> dict[int, int]:
        """Return the sequence of each partition after which to read. Reading all of it again starts no task twice."""
        self._origins = {partition: await self.log.origin(partition) for partition in range(self.log.partitions)}
        after = self.place.positions(self.log.epoch, self._origins)
        for partition, sequence in list(after.items()):
            if sequence > (end := await self.log.end(partition, at_least=sequence)):
                log.warning(
                    f"{sequence} of partition {partition} was read, which ends at {end} now: it is read again",
                    action="positions_forgotten",
                    partition=partition,
                )
                del after[partition]
        self._table.last = dict(after)
        return after

    def _parts(self, after: dict[int, int]) -> list[Coroutine[None, None, None]]:
        readers = [self._read(partition, after.get(partition, 0)) for partition in range(self.log.partitions)]
        return [*readers, self._presence.run(), self._keep_positions(), self._watch_room()]

    async def _begin(self) -> None:
        """Clean up what the previous process left once the existing commits are read, then handle each task."""
        await self._caught_up.wait()
        await self.runner.sweep(frozenset(held.id for held in self._table))
        self._looking = True
        for held in self._table:
            self._dispatch(held)
        await self._presence.held.wait()
        self._fill()
        self.started.set()
        log.info("the executor is ready", action="executor_ready", executor=self.id)

    async def _end(self) -> None:
        """Start no more tasks, and end the running ones within a bounded time."""
        self._queue.clear()
        self._end_tasks(EndReason.SHUTDOWN)
        if self._works:
            await asyncio.wait(self._works, timeout=_END_SECONDS)
        await self._cancel_running()

    async def _cancel_running(self) -> None:
        works = set(self._works)
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works)

    async def _read(self, partition: int, after: int) -> None:
        filters = [self.log.subjects.tasks_of(partition, self.id)]
        if partition == self._presence.address.partition:
            filters.append(self.log.subjects.of(self._presence.address))
        async with self.log.read(partition, after, filters=filters) as reader:
            while batch := await reader.next_batch(wait=False):
                self._take_in(batch)
            self._reading += 1
            if self._reading == self.log.partitions:
                self._caught_up.set()
            await self._caught_up.wait()
            while True:
                for held in self._take_in(await reader.next_batch()):
                    if self._looking:
                        self._dispatch(held)

    def _take_in(self, messages: list[RawMessage]) -> list[HeldTask]:
        touched: dict[str, HeldTask] = {}
        for message in messages:
            if self._table.observe(message) or (stored := decoded(message)) is None:
                continue
            if stored.commit.address.kind == "executor":
                self._presence.observe(stored)
                self._fill()  # it may be drained now
            elif (held := self._table.take_in(stored)) is not None:
                task = held.known.task
                if task.settled and held.stage is Stage.SEEN and not (task.lost and self.runner.kept(held.id)):
                    self._drop(held)  # The previous process has settled it.
                else:
                    touched[held.id] = held
        self._changed.set()
        return list(touched.values())

    def _dispatch(self, held: HeldTask) -> None:
        """Start, stop or forget a task after one of its commits."""
        task = held.known.task
        if held.stage is Stage.ACTIVE:
            return  # Its reporter has the commit.
        if held.stage is Stage.SEEN and task.phase is not ExecutorTaskPhase.NOT_STARTED:
            held.stage = Stage.ACTIVE
            self.begin(held, self._execution(held).recover())
        elif not task.open:
            self._drop(held)
        elif task.stop or task.timedout:
            # It will not start any more, so it needs no slot.
            held.stage = Stage.ACTIVE
            self.begin(held, self._execution(held).start(lambda: None))
        elif held.stage is Stage.SEEN:
            held.stage = Stage.WAITING
            self._queue.append(held)
            self._fill()

    def _fill(self) -> None:
        """Start waiting tasks while there are free slots.

        Without a trusted lease no task starts: if a task started between two leases, no trust window would end it
        before a scheduler declares it lost.
        """
        closed = self._draining or self.stopping.is_set() or not self._presence.trusted or bool(self._presence.full)
        limit = self.settings.active_tasks_limit
        while not closed and self._queue and (not limit or self._active < limit):
            if self._spare_files < FILES_OF_A_TASK:  # `_watch_room` looks again
                break
            held = self._queue.popleft()
            if held.stage is not Stage.WAITING:
                continue
            held.stage = Stage.ACTIVE
            self._active += 1
            self._begun += 1
            self._spare_files -= FILES_OF_A_TASK
            RUNNING_TASKS.set(self._active, self.id)
            self.begin(held, self._execution(held).start(self._release))
        expected = self._looking and not closed and not self._presence.draining
        self.runner.capabilities.expect_tasks(expected)
        self._presence.touch()

    def _release(self) -> None:
        self._active -= 1
        if self._begun:
            self._begun -= 1
            self._spare_files += FILES_OF_A_TASK
        RUNNING_TASKS.set(self._active, self.id)
        self._fill()

    def _execution(self, held: HeldTask) -> Execution:
        execution = Execution(held, self.runner, self.log, f"executor:{self.id}", self.clock)
        self._executions[held.id] = execution
        return execution

    def begin(self, held: HeldTask, work: Coroutine[None, None, None]) -> None:
        """Work on a held task in a separate asyncio task; any exception fails only this task."""
        task = asyncio.create_task(self._supervise(held, work), name=f"task {held.id}")
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        task.add_done_callback(lambda _: work.close())  # of a task that is cancelled before its first step

    async def _supervise(self, held: HeldTask, work: Coroutine[None, None, None]) -> None:
        name = f"task {held.id}"
        try:
            with only_asked_cancellation(name):
                await work
        except Exception as error:  # A failure here fails only this task.
            log.exception("a task failed because of an internal error", action="task_fault", task=held.id)
            try:
                with only_asked_cancellation(name):
                    await self._executions[held.id].fail(error)
            except Exception:  # It has ended in the log; its last logs are lost.
                log.exception("the logs of a task could not be uploaded", action="task_left", task=held.id)
        FINISHED_TASKS.add(1, self.id, held.known.task.phase.value)
        self._drop(held)

    def _drop(self, held: HeldTask) -> None:
        held.stage = Stage.ACTIVE
        self._table.forget(held)
        self._executions.pop(held.id, None)
        self._changed.set()

    def _end_tasks(self, reason: EndReason) -> None:
        for execution in self._executions.values():
            execution.ending.signal(reason)

    async def _watch_room(self) -> None:
        """Stop taking tasks while the disk is full or file descriptors are short, and resume when there is room.

        It checks every ROOM_SECONDS, because neither sends an event when another program, or another part of this
        process, fills or frees it. A check is a few system calls. What fails between two checks fails its own task.
        """
        while True:
            self._spare_files, self._begun = spare_files(), 0
            shortage = too_many_open_files() if self._spare_files < FILES_OF_A_TASK else ""
            try:
                shortage = shortage or await asyncio.to_thread(self._disk_shortage)
            except OSError as error:
                shortage = too_many_open_files() if out_of_files(error) else f"disk full: {error}"
            if bool(shortage) is not bool(self._presence.full):
                log.warning(
                    shortage or "there is room for tasks again",
                    action="executor_full" if shortage else "executor_has_room",
                )
                self._presence.full = shortage
                self._fill()
            elif self._queue and not shortage:
                self._fill()  # tasks may wait for descriptors
            await asyncio.sleep(ROOM_SECONDS)

    def _disk_shortage(self) -> str:
        shortage = disk_shortage(self.place.folder)
        if not shortage:
            self.place.disk_reserve.refill()
        return shortage

    async def _keep_positions(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_KEEP_SECONDS)
            self._changed.clear()
            positions = self._table.positions()
            await asyncio.to_thread(self.place.keep_positions, self.log.epoch, positions, self._origins)


class TaskTable:
    """The tasks that are not forgotten, and the read position of each partition."""

    def __init__(self) -> None:
        self._held: dict[str, HeldTask] = {}
        self.last: dict[int, int] = {}
        """The last sequence read of each partition, by this process or the previous one."""

    def __iter__(self) -> Iterator[HeldTask]:
        return iter(list(self._held.values()))

    def observe(self, message: RawMessage) -> bool:
        """Hand a commit to the reporter of its task, and return whether there is one."""
        held = self._held.get(aggregate_of(message.subject).partition("/")[2])
        if held is None or held.reporter is None:
            return False
        self._note(message.position)
        held.reporter.observe(message)
        return True

    def take_in(self, stored: StoredCommit) -> HeldTask | None:
        """Apply a commit and return its task; None for a forgotten one."""
        self._note(stored.position)
        held = self._held.get(stored.commit.address.id)
        if held is None:
            return self._begin(stored)
        held.known.apply(stored)
        return held

    def _note(self, position: Position) -> None:
        self.last[position.partition] = max(self.last.get(position.partition, 0), position.sequence)

    def forget(self, held: HeldTask) -> None:
        """Drop a task that needs no more work."""
        self._held.pop(held.id, None)

    def positions(self) -> dict[int, int]:
        """Return the sequence of each partition after which a restart has to read."""
        after = dict(self.last)
        for held in self._held.values():
            partition = held.known.address.partition
            after[partition] = min(after[partition], held.first - 1)
        return after

    def open_tasks(self) -> dict[str, int]:
        """Return the number of unfinished tasks, by partition."""
        return dict(Counter(str(held.known.address.partition) for held in self._held.values() if held.known.task.open))

    def _begin(self, stored: StoredCommit) -> HeldTask | None:
        commit = stored.commit
        if commit.version != 1 or not commit.events or not isinstance(commit.events[0], ExecutorTaskAssigned):
            return None
        try:
            task = fold_executor_task(None, commit)
        except UnfitCommitError as error:
            log.warning(f"ignoring a task: {error}", action="commit_unfit", task=commit.address.id)
            return None
        known = KnownTask(commit.address, task, Head(1, stored.position.sequence), commit.trace, commit.id)
        held = self._held[task.id] = HeldTask(known, stored.position.sequence)
        return held


KUBERNETES = "kubernetes://"
"""The scheme of `executor.engine` for a cluster; the namespace follows."""
CONFIGURATION_FOLDER = Path("/etc/runstream")
"""The usual directory for settings and tokens, hidden from tasks."""


def make_executor(
    settings: Settings, nats: Nats, log: Log, objects: ObjectStorage, leases: Leases, keyring: Keyring
) -> TaskExecutor:
    """Return the executor of this data directory, not started yet. `leases` is the bucket `<namespace>_executors`."""
    place = ExecutorPlace(settings.data_dir)
    offered = settings.executor
    if offered.driver == "noop":
        return TaskExecutor(place, offered, log, leases, NoopRunner())
    live = LiveLogs(nats, settings.namespace)
    context = RunnerContext(
        *(make_driver(settings, place), log, objects, live, Specs(log, keyring), place.disk_reserve),
        stop_grace_seconds=offered.stop_grace_seconds,
        setup_seconds=offered.setup_seconds,
        step_log_bytes=offered.step_log_bytes,
        task_disk_bytes=offered.task_disk_bytes,
    )
    runner: Runner = PodRunner(context, place.tasks)
    return TaskExecutor(place, offered, log, leases, runner, live)


def make_driver(settings: Settings, place: ExecutorPlace) -> Driver:
    """Return the driver for host tasks, and with a container engine for tasks with containers as well."""
    offered, executor_id = settings.executor, place.identity(settings.executor.id)
    rules = host_rules(settings, place)
    host = ProcessDriver(executor_id, rules)
    if not offered.engine:
        return host
    if offered.engine.startswith(KUBERNETES):
        return ByRuntime(host, _kubernetes(offered, executor_id, rules))
    containers = DockerRules(
        offered.engine,
        offered.engine_tls_dir,
        offered.pull_policy,
        offered.pod_network,
        allow_privileged=offered.allow_privileged_containers,
        visible=rules.visible,
        limits=rules.limits,
        disk_bytes=offered.task_disk_bytes,
    )
    return ByRuntime(host, DockerDriver(executor_id, containers))


def _kubernetes(offered: ExecutorSettings, executor_id: str, rules: HostRules) -> Driver:
    # Its client takes half a second to import, which other executors need not wait for.
    from runstream.executor.drivers.kubernetes.driver import KubernetesDriver
    from runstream.executor.drivers.kubernetes.manifests import PodRules

    namespace = offered.engine.removeprefix(KUBERNETES)
    pods = PodRules(offered.pull_policy, offered.allow_privileged_containers, offered.pod_node_labels, rules.limits)
    return KubernetesDriver(executor_id, namespace, pods, rules.visible)


def host_rules(settings: Settings, place: ExecutorPlace) -> HostRules:
    """Return the rules for host tasks from the settings.

    Raises BadRequestError for a writable place that contains, or lies in, files of the service: a task could
    rename the folder that is empty in its sandbox, and the next task would find it by its new name.
    """
    offered = settings.executor
    hidden = (settings.data_dir, settings.objects_path, settings.secrets_key_path, settings.file, CONFIGURATION_FOLDER)
    for path in map(Path, offered.sandbox_writable):
        real = path.resolve()
        for own in (each.resolve() for each in hidden if each is not None):
            if real.is_relative_to(own) or own.is_relative_to(real):
                raise BadRequestError(
                    f"executor.sandbox_writable has {path}, where files of the service are: {own}",
                    code="writableHidesFiles",
                    hint="list folders of their own, apart from the service's",
                )
    return HostRules(
        sandbox=offered.sandbox,
        visible=Visible(
            offered.sandbox_readonly,
            offered.sandbox_writable,
            tuple(path for path in hidden if path is not None),
            offered.sandbox_network,
        ),
        passed=offered.pass_environment,
        limits=Limits(
            processes=offered.task_processes,
            open_files=offered.task_open_files,
            file_bytes=offered.task_file_bytes,
            memory_bytes=offered.task_memory_bytes,
        ),
        accounts=place.folder,
        tasks=place.tasks,
        allow=offered.allow_host,
    )
