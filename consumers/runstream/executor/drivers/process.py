"""A driver that runs host tasks as processes of this machine, in a sandbox for each task or without one."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import pwd
import secrets
import signal
import tempfile
import termios
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import structlog

from runstream.errors import BadRequestError, InternalError, RunstreamError
from runstream.executor.drivers.host_files import HostFiles
from runstream.executor.drivers.port import Exec, NotStartedError, Output, Pod, ServiceOutput
from runstream.executor.drivers.prompt_watch import PromptWatch
from runstream.executor.drivers.spare import Spare
from runstream.executor.limits import (
    FILE_TOO_LARGE,
    TAIL_BYTES,
    TOO_LARGE,
    ControlGroup,
    ControlGroups,
    Limits,
    control_groups,
    counted_in_sandbox,
    probable_limit,
    processes_of_user,
)
from runstream.executor.process_tree import Process, ProcessTree, agent_gone, find_process
from runstream.executor.sandbox import (
    HOME,
    INSIDE_UID,
    SHARED_MEMORY,
    USER_NAME,
    Visible,
    accounts,
    found_places,
    task_user,
)
from runstream.executor.spawner.client import AgentProxy, Spawner, StartError, close_all
from runstream.executor.spawner.plan import AgentCommand, Join, Plan, Sandbox
from runstream.executor.spec import ExecutorTaskSpec, for_terminal, inherited, marked, own_virtual_environment, placed
from runstream.executor.task_root import TaskRoot, TaskUser
from runstream.executor.workdir import TaskFolder
from runstream.lifecycle import wait_for_event
from runstream.open_files import out_of_files

log = structlog.get_logger()

_KILLED = 128 + signal.SIGKILL
_MAX_READY = 32
"""Maximum number of agents that are kept for later tasks."""
_SPARE_SECONDS = 600.0
"""Time for which a sandbox is kept ready, in seconds: it keeps the file systems of its places mounted."""

REFUSED = "refused"
"""Prefix of `sandbox` where a sandbox is required and cannot be created."""

Mode = Literal["auto", "require", "off"]


@dataclass(frozen=True, slots=True)
class HostRules:
    """The rules for host tasks on this machine."""

    sandbox: Mode = "auto"
    visible: Visible = field(default_factory=Visible)
    passed: tuple[str, ...] = ()
    """Patterns of names of environment variables that tasks inherit from the executor."""
    limits: Limits = field(default_factory=Limits)
    accounts: Path = field(default_factory=Path)
    """The folder for the account files of sandboxes."""
    tasks: Path | None = None
    """The folder of the tasks' folders, where sandboxes are made ready; None for none."""
    allow: bool = True


@dataclass(slots=True)
class Host:
    """An agent, its process and its control group, apart from the task that it serves."""

    agent: AgentProxy
    process: Process
    group: ControlGroup | None
    new: bool = True
    """True if the agent was made for its current task."""


@dataclass(frozen=True, slots=True)
class ReadySandbox:
    """A sandbox without a task, in a folder of its own. Nothing has run in it."""

    host: Host
    folder: TaskFolder
    user: TaskUser
    sandbox: Sandbox
    places: tuple[object, ...]
    """What the machine had at the places of the sandbox when it was made."""

    def move(self, folder: TaskFolder) -> None:
        """Make its home and /tmp those of a task, which has none yet: mounts follow the folders. Raises OSError."""
        self.folder.home.rename(folder.home)
        self.folder.tmp.rename(folder.tmp)


class ProcessDriver:
    """A driver that runs host tasks as processes of this machine."""

    allow_pod = False
    engine = ""
    engine_away = ""
    engine_cpu = 0
    engine_memory = 0
    archs: tuple[str, ...] = ()

    def __init__(self, executor_id: str, rules: HostRules) -> None:
        self.allow_host = rules.allow
        self.sandbox = ""
        """How tasks are isolated from the machine, as text: `sandboxed`, or the reason why not."""
        self.visible = rules.visible
        """What of the machine tasks may see."""
        self._rules = rules
        self._executor_id = executor_id
        self._spawner = Spawner()
        self._accounts: tuple[tuple[str, str], ...] = ()
        self._groups = ControlGroups()
        self._sandboxed = False
        self._ready: list[Host] = []
        """Idle agents; only without a sandbox."""
        self._living: set[int] = set()
        """Process ids of all agents without a sandbox."""
        self.spare = Spare(self._make_ready, self._discard, _SPARE_SECONDS)
        """The sandbox for the next task."""
        self._inherited = inherited(os.environ, rules.passed, own_virtual_environment())

    def on_change(self, changed: Callable[[], None]) -> None:
        """Do nothing: there is no engine that could change."""

    def act_until(self, until: float, lapsed: Callable[[], None]) -> None:
        """Let agents end their tasks then."""
        self._spawner.act_until(until, lapsed)

    def expect_tasks(self, expected: bool) -> None:
        """Keep one sandbox ready while tasks are expected."""
        self.spare.expect(expected and self._sandboxed and self._rules.tasks is not None)

    async def sweep(self) -> None:
        """Do nothing: what a task left is found by its folder."""

    async def setup(self) -> None:
        """Check whether sandboxes work here by creating one."""
        self._groups = await asyncio.to_thread(control_groups, self._executor_id)
        if self._rules.sandbox == "off":
            self.sandbox = "off"
        else:
            reason = await self.refusal()
            self._sandboxed = not reason
            self.sandbox = f"missing: {reason}" if reason else "sandboxed"
            if reason and self._rules.sandbox == "require":
                self.allow_host = False
                self.sandbox = f"{REFUSED}: {reason}"
        for place in (*self._rules.visible.readonly, *self._rules.visible.writable) if self._sandboxed else ():
            if not await asyncio.to_thread(os.path.exists, place):
                log.warning(f"sandboxes have no {place}: it is not there", action="place_missing", path=place)
        if self.sandbox.startswith(REFUSED):
            log.warning(f"tasks on this machine are {self.sandbox}", action="sandbox_absent", reason=self.sandbox)
        elif not self._sandboxed:
            log.warning(
                f"tasks on this machine run WITHOUT a sandbox ({self.sandbox}): "
                "they can read and change all that this user can",
                action="sandbox_absent",
                reason=self.sandbox,
            )

    async def refusal(self) -> str:
        """Return the reason why no sandbox can be created; empty if one can."""
        self._accounts = await asyncio.to_thread(accounts, self._rules.accounts)
        with tempfile.TemporaryDirectory(prefix="runstream-") as folder:
            place = TaskFolder(Path(folder) / "task")
            place.make()
            place.make_home()
            try:
                user = task_user("probe")
                host = await self._open(place, user, self._sandbox(place, user), None)
                host.agent.close()
            except RunstreamError as error:
                return str(error)
        return ""

    async def new_pod(
        self, task_id: str, spec: ExecutorTaskSpec, folder: TaskFolder, output: Output, services: ServiceOutput
    ) -> Pod:
        """Open an agent, in a sandbox if possible, and return a pod that runs commands there."""
        self._check(spec)
        tree = self._tree(task_id, folder)
        if not self._sandboxed:
            if self._rules.sandbox == "require":
                raise InternalError(
                    f"the task cannot run: a sandbox is required, but {self.sandbox.removeprefix(f'{REFUSED}: ')}",
                    code="sandboxUnavailable",
                    hint="`runstream doctor` says what is missing; or start the executor with --sandbox auto",
                )
            output(
                f"WITHOUT a sandbox: the task can read and change all that its user can ({self.sandbox}).\n".encode()
            )
        async with contextlib.AsyncExitStack() as undo:
            if self._sandboxed:
                host, user = await self._sandboxed_host(task_id, folder)
                undo.push_async_callback(self._close, host)
                output(b"In a sandbox of its own.\n")
                files = TaskRoot(HOME, {"/": host.agent.take_root()}, user if user.uid != os.geteuid() else None)
                place = placed(HOME, "/tmp", USER_NAME)  # noqa: S108
            else:
                folder.make_home()
                host = await self._host()
                undo.push_async_callback(self._close, host)
                files = TaskRoot.of_folders(folder.home, folder.tmp)
                place = placed(str(folder.home), str(folder.tmp), _user_name())
            undo.callback(files.close)
            limits = self._rules.limits.described(
                sandboxed=self._sandboxed, controllers=self._counted(), ordinary=os.geteuid() != 0
            )
            output(f"{limits}\n".encode() if limits else b"")
            undo.callback(tree.close)
            tree.started(host.process, host.group, first=self._sandboxed, new=host.new)
            environment = {**self._inherited, **place, **spec.environment}
            pod = ProcessPod(self, tree, folder, host, files, environment)
            undo.pop_all()
        return pod

    async def _host(self) -> Host:
        """Return an agent for a task without a sandbox: an idle one, or else a new one."""
        while self._ready:
            host = self._ready.pop()
            if host.agent.alive:
                host.new = False
                host.agent.next_task()
                return host
            await self._close(host)
        group = self._group()
        return await self._opened(self._plan(group), group)

    async def _opened(self, plan: Plan, group: ControlGroup | None) -> Host:
        with contextlib.ExitStack() as undo:
            if group is not None:
                undo.callback(group.remove)
            agent = await self._spawner.open(plan)
            undo.callback(agent.close)
            process = find_process(agent.pid)
            if process is None:
                raise InternalError("the processes of the task were ended from outside", code="taskProcessesGone")
            undo.pop_all()
        if plan.sandbox is None:
            self._living.add(agent.pid)
        return Host(agent, process, group)

    async def release(self, host: Host, *, clean: bool) -> None:
        """Take an agent back from a task; keep it for the next one if the task left nothing behind."""
        # A group's memory accounting outlives the task: files in /dev/shm, kills.
        kept = clean and not self._sandboxed and not self._groups.controllers and len(self._ready) < _MAX_READY
        if kept and host.agent.alive:
            self._ready.append(host)
        else:
            await self._close(host)

    async def _close(self, host: Host) -> None:
        self._living.discard(host.process.pid)
        host.agent.close()
        if host.group is not None:
            try:
                await agent_gone(host.process)  # a group with a process cannot be removed
            finally:
                host.group.remove()

    def _group(self) -> ControlGroup | None:
        """Create a control group for a task if it is needed: for limits, or to end a task without a sandbox."""
        needed = self._groups.controllers or not counted_in_sandbox(self._sandboxed)
        return self._groups.group(self._rules.limits) if needed else None

    def _counted(self) -> frozenset[str]:
        """Return the controllers that bound tasks."""
        return self._groups.controllers | ({"pids"} if self._groups.pids is not None else set())

    def _plan(self, group: ControlGroup | None, sandbox: Sandbox | None = None, join: Join | None = None) -> Plan:
        others = processes_of_user() if not self._sandboxed and "pids" not in self._counted() else None
        limits = self._rules.limits.resources(sandboxed=self._sandboxed, user_processes=others)
        cgroup, pids = (group.path, group.pids) if group is not None else (None, None)
        return Plan(sandbox, join, limits, str(cgroup or ""), str(pids or ""))

    def _check(self, spec: ExecutorTaskSpec) -> None:
        runtime = spec.task.runtime
        if runtime.type != "host":
            raise BadRequestError(
                f"this executor cannot run a runtime of type {runtime.type!r}: it has no container engine",
                code="runtimeNotSupported",
                hint="use `runtime: {type: host}`, or an executor with a driver for containers",
            )
        if not self.allow_host and not self.sandbox.startswith(REFUSED):
            raise BadRequestError("this executor does not allow tasks on its host", code="hostNotAllowed")
        if spec.task.user:
            raise BadRequestError(
                f"a host task runs as the executor's user; user {spec.task.user!r} cannot be given",
                code="userNotSupported",
                hint="leave `user` out",
            )

    def _sandbox(self, folder: TaskFolder, user: TaskUser) -> Sandbox:
        return self._rules.visible.sandbox(folder, user, self._accounts)

    async def _sandboxed_host(self, task_id: str, folder: TaskFolder) -> tuple[Host, TaskUser]:
        """Return the agent of a task's sandbox and the task's user: of the sandbox that is ready, or of a new one."""
        ready = await self.spare.take()
        if ready is not None:
            with contextlib.suppress(OSError):  # no disk or descriptor is left: making a new one says so
                if self._usable(ready):
                    ready.move(folder)
                    ready.host.new = False
                    # Removing a folder takes longer than all the rest.
                    self.spare.later(asyncio.to_thread(ready.folder.remove))
                    return ready.host, ready.user
            self.spare.discard(ready)
        for place in (folder.home, folder.tmp):
            place.mkdir(mode=0o700, exist_ok=True)
        user = task_user(task_id)
        return await self._open(folder, user, self._sandbox(folder, user), self._group()), user

    def _usable(self, ready: ReadySandbox) -> bool:
        """Return whether a sandbox is still what a new one would be."""
        sandbox = self._sandbox(ready.folder, ready.user)
        return ready.host.agent.alive and sandbox == ready.sandbox and found_places(sandbox) == ready.places

    async def _make_ready(self) -> ReadySandbox:
        name = f"ready-{secrets.token_hex(8)}"
        folder = TaskFolder((self._rules.tasks or Path()) / name)
        user = task_user(name)
        sandbox = self._sandbox(folder, user)
        places = found_places(sandbox)  # before it is made: a later change makes it out of date
        try:
            folder.make()
            folder.make_home()
            return ReadySandbox(await self._open(folder, user, sandbox, self._group()), folder, user, sandbox, places)
        except BaseException:
            folder.remove()
            raise

    async def _discard(self, ready: ReadySandbox) -> None:
        try:
            await self._close(ready.host)
        finally:
            await asyncio.to_thread(ready.folder.remove)

    async def _open(self, folder: TaskFolder, user: TaskUser, sandbox: Sandbox, group: ControlGroup | None) -> Host:
        if user.uid != os.geteuid():
            for path in (folder.home, folder.tmp):
                os.chown(path, user.uid, user.gid, follow_symlinks=False)
        return await self._opened(self._plan(group, sandbox), group)

    async def join(self, host: Host, seen: tuple[Path, ...]) -> AgentProxy:
        """Open a second agent in a task's sandbox that also sees these places."""
        join = Join(INSIDE_UID, tuple(str(path) for path in seen))
        namespaces = await host.agent.namespaces()
        try:
            return await self._spawner.open(self._plan(host.group, join=join), namespaces)
        finally:
            close_all(namespaces)

    async def end_leftover(self, task_id: str, folder: TaskFolder) -> None:
        """Kill the processes that an earlier process of this executor left running."""
        tree = self._tree(task_id, folder)
        await asyncio.to_thread(tree.recall, frozenset(self._living))
        await tree.end(0)

    async def close(self) -> None:
        """End the agents and the spawner."""
        async with contextlib.AsyncExitStack() as closing:
            closing.callback(self._groups.remove)
            closing.push_async_callback(asyncio.to_thread, self._spawner.close)
            closing.push_async_callback(self.spare.close)
            for host in self._ready:
                closing.push_async_callback(self._close, host)
            self._ready = []

    def _tree(self, task_id: str, folder: TaskFolder) -> ProcessTree:
        return ProcessTree(f"{self._executor_id}/{task_id}", folder.root, folder.processes)


class ProcessPod:
    """A pod whose commands are processes of this machine."""

    def __init__(
        self,
        driver: ProcessDriver,
        tree: ProcessTree,
        folder: TaskFolder,
        host: Host,
        root: TaskRoot,
        environment: dict[str, str],
    ) -> None:
        self._driver = driver
        self._root = root
        self.files = HostFiles(root)
        self._home = folder.home
        self._tree = tree
        # A file in memory costs a tenth of a new file on disk. Without a sandbox, /dev/shm is the machine's.
        self._scripts_folder = environment["TMPDIR"] if host.agent.root < 0 else SHARED_MEMORY
        self._host = host
        self._environment = environment
        self._joined: dict[tuple[Path, ...], AgentProxy] = {}
        self._outputs: list[CommandOutput] = []
        self._scripts: list[tuple[str, str]] = []
        self._running = 0
        """Number of commands that have not ended."""
        self._clean = False
        """True once the task has ended and left no process to end."""
        self._ending: asyncio.Task[None] | None = None

    async def exec(self, command: Exec, output: Output) -> int:
        """Run a command, in the task's sandbox if it has one."""
        if self._ending is not None:
            raise InternalError("the task has ended", code="taskEnded")
        agent = await self._agent_for(command.visible)
        own = {name: value for name, value in self._environment.items() if command.keeps(name)}
        environment = marked({**own, **command.environment}, self._tree.mark)
        if command.tty:
            environment = for_terminal(environment)
        folder = self._root.path(command.folder)
        scripts, self._scripts = tuple(self._scripts), []
        self._running += 1
        try:
            descriptor = await agent.start(
                AgentCommand(command.arguments, folder, environment, command.tty, scripts), self._root.user
            )
            try:
                command_output = CommandOutput(descriptor, output, tty=command.tty)
            except BaseException:
                os.close(descriptor)
                raise
            self._outputs.append(command_output)
            try:
                status = await agent.ended()
            except InternalError:
                if not self._is_ending():
                    raise
                status = _KILLED
        except StartError as error:
            self._running -= 1
            raise NotStartedError(_reason(command, error, self._link(folder))) from error
        self._running -= 1
        await command_output.finish(lambda: [process.pid for process in self._tree.members()])
        group = self._host.group
        if status and group is not None and group.out_of_memory():
            output(b"A process was killed: the task used all the memory that it may (executor.task_memory_bytes).\n")
        if status == FILE_TOO_LARGE:
            output(TOO_LARGE)
        if status and (said := probable_limit(command_output.tail)):
            output(said)
        if program := command_output.waited_for_keys:
            output(
                f"\n{program} waited for keyboard input, but steps are not interactive: its terminal was hung up. "
                "Give it an option that asks nothing, or the step `tty: false`.\n".encode()
            )
        return status

    def _link(self, path: str) -> str:
        """Return where a link leads; empty for anything else."""
        try:
            descriptor = self._root.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (OSError, RunstreamError):
            return ""
        try:
            return os.readlink("", dir_fd=descriptor)
        except OSError:
            return ""
        finally:
            os.close(descriptor)

    async def _agent_for(self, seen: tuple[Path, ...]) -> AgentProxy:
        if not seen or self._host.agent.root < 0:
            return self._host.agent
        if seen not in self._joined:
            self._joined[seen] = await self._driver.join(self._host, seen)
        return self._joined[seen]

    async def make_working_dir(self, path: str) -> None:
        """Create the task's working directory with its parents, before the first command."""
        inside = self._root.path(path)
        parent, _, name = inside.rpartition("/")
        if parent != self._root.home or name in ("", ".", ".."):
            os.close(await self._root.run(self._root.make_folder, inside))
            return
        # The default directory. The home is new and empty, so there is no link to follow, and no need for a thread.
        folder = self._home / name
        folder.mkdir(0o755)
        if (user := self._root.user) is not None:
            os.chown(folder, user.uid, user.gid)

    def _is_ending(self) -> bool:
        return self._ending is not None

    def require_visible(self, path: Path) -> None:
        """Raise BadRequestError if a path of the machine lies in, or contains, a place hidden from tasks."""
        self._driver.visible.require_visible(path)

    def sees(self, path: Path) -> bool:
        """Return whether the task's sandbox has this place, or would have it."""
        if self._host.agent.root < 0:
            return self._driver.visible.lists(path)
        try:
            os.close(self._root.open(str(path), os.O_PATH | os.O_CLOEXEC))
        except (OSError, RunstreamError) as error:  # missing, or behind a link that leads out
            if out_of_files(error):
                raise
            return False
        return True

    def may_read(self, path: Path) -> bool:
        """Return whether the permissions of a place of the machine allow the task's user to read it."""
        user, found = self._root.user, path.stat()
        return user is None or user.uid == found.st_uid or found.st_mode & 0o005 == 0o005

    async def find_in(self, folder: Path) -> str:
        """Return the same path: the sandbox has it at the same place."""
        return str(folder)

    async def write_script(self, text: str) -> str:
        """Schedule a script to be written with the next command, mode 0600; return its path."""
        path = f"{self._scripts_folder}/step-{secrets.token_hex(6)}"
        self._scripts.append((path, f"{text}\n"))  # the agent writes it, as the task's user, with the next command
        return path

    async def end(self, grace_seconds: float) -> None:
        """End all processes of the task."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(grace_seconds))
        await asyncio.shield(self._ending)

    async def _end(self, grace_seconds: float) -> None:
        running = self._running
        self._clean = not await self._tree.end(grace_seconds, alone=not running and not self._joined) and not running

    async def close(self) -> None:
        """Close the agents and outputs of the task's commands, and give its agent back."""
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._driver.release, self._host, clean=self._clean)
            closing.callback(self._tree.close)
            closing.callback(self._root.close)
            for output in self._outputs:
                closing.callback(output.close)
            for agent in self._joined.values():
                closing.callback(agent.close)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a user without an account, as in many containers
        return str(os.geteuid())


def _reason(command: Exec, error: StartError, link: str) -> str:
    if error.stage == "start":
        return f"the command cannot be started: {error}"
    if error.stage == "folder":
        if error.number == errno.ENOENT:
            lead = f": it is a link to {link}, which is not there for the task" if link else ""
            return f"the working directory {command.folder} does not exist{lead}"
        return f"the working directory {command.folder} cannot be used: {error}"
    if error.number == errno.ENOENT:
        return f"{command.arguments[0]} cannot be executed: there is no such program"
    return f"{command.arguments[0]} cannot be executed: {error}"


async def missing_sandbox() -> str:
    """Return the reason why this machine cannot create a sandbox, by trying; empty if it can."""
    with tempfile.TemporaryDirectory(prefix="runstream-") as folder:
        driver = ProcessDriver("probe", HostRules(accounts=Path(folder)))
        try:
            return await driver.refusal()
        finally:
            await driver.close()


_READ_BYTES = 64 << 10
_QUIET_SECONDS = 0.25
"""Wait for further output after the command's end while another process holds it open, in seconds."""
_BUSY_SECONDS = 2.0
"""Maximum wait for output that never pauses, in seconds."""
_READER_SECONDS = 10.0
"""Time that a process may take to write its result after it has read its pipe to the end, in seconds."""
_UNREAD_SECONDS = 300.0
"""Time that a process may take to read what is still in its pipe, in seconds."""
_NUDGE_SECONDS = 1.0


class CommandOutput:
    """A reader of a command's output in the event loop. It owns the descriptor; `close` it when the task has ended."""

    def __init__(self, descriptor: int, output: Output, *, tty: bool) -> None:
        self._descriptor = descriptor
        self._output: Output | None = output
        self._drained = asyncio.Event()
        self._open = True
        self._count = 0
        self.tail = b""
        """The last bytes of the output."""
        self._nudge: asyncio.TimerHandle | None = None
        self._keys = PromptWatch(descriptor) if tty else None
        os.set_blocking(descriptor, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)
        if tty:
            self._nudge = self._loop.call_later(_NUDGE_SECONDS, self._end_input)

    async def finish(self, members: Callable[[], Iterable[int]]) -> None:
        """Wait for the end of the output after the command has ended; `members` returns the task's current
        processes."""
        begun, patience, read = self._loop.time(), _BUSY_SECONDS, self._count
        while not await wait_for_event(self._drained, _QUIET_SECONDS):
            unread = await asyncio.to_thread(lambda: _unread(members()))
            if unread is not None:
                patience = _UNREAD_SECONDS if unread else _READER_SECONDS
            quiet, read = read == self._count, self._count
            if (unread is None and quiet) or self._loop.time() - begun > patience:
                break
        self._output = None

    def close(self) -> None:
        """Close the descriptor; a second close does nothing."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            if self._nudge is not None:
                self._nudge.cancel()
            os.close(self._descriptor)
            self._drained.set()

    def _read(self) -> None:
        try:
            chunk = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:  # no output is available yet
            return
        except OSError:  # a terminal reports the end of output like this, once no process holds its other side
            chunk = b""
        if not chunk:
            self.close()
            return
        self._count += len(chunk)
        if self._output is not None:
            self.tail = (self.tail + chunk)[-TAIL_BYTES:]
            self._output(chunk)

    def _end_input(self) -> None:
        """End the input of a program that has set the terminal to wait for keys: none ever come."""
        if self._keys is not None:
            self._nudge = self._loop.call_later(_NUDGE_SECONDS, self._end_input)
            self._keys.look(self._count)

    @property
    def waited_for_keys(self) -> str:
        """Name of the program that was hung up because it waited for keys; empty for none."""
        return self._keys.program if self._keys is not None else ""


def _unread(pids: Iterable[int]) -> int | None:
    """Return the number of bytes in pipes that processes read from and none writes to; None without such a reader."""
    readers: dict[str, str] = {}
    written: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                path = f"/proc/{pid}/fd/{name}"
                target = os.readlink(path)  # noqa: PTH115
                if not target.startswith("pipe:"):
                    continue
                if os.lstat(path).st_mode & 0o200:
                    written.add(target)
                elif name == "0":
                    readers[target] = path
    waiting = [path for pipe, path in readers.items() if pipe not in written]
    return sum(_pending(path) for path in waiting) if waiting else None


def _pending(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        count = array.array("i", [0])
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
        return count[0]
    finally:
        os.close(descriptor)
