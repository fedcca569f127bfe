"""Host tasks: each in a folder of its own, its commands in sessions of their own, sandboxed where that is possible."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Literal

from runstream.errors import BadRequestError, InternalError
from runstream.executor.archives import expand_home
from runstream.executor.child import Child, Command, Output
from runstream.executor.drivers.port import Exec, Pod
from runstream.executor.environment import inherited, marked, placed
from runstream.executor.process_tree import ProcessTree
from runstream.executor.sandbox import Sandbox, find_sandbox
from runstream.executor.spec import ExecutorTaskSpec
from runstream.executor.task_folder import TaskFolder
from runstream.executor.task_root import TaskRoot


class ProcessDriver:
    """Runs host tasks as processes of this machine."""

    allow_pod = False

    def __init__(
        self,
        executor_id: str,
        *,
        sandbox: Literal["auto", "require", "off"] = "auto",
        hidden: tuple[Path, ...] = (),
        allow_host: bool = True,
    ) -> None:
        """`hidden` are folders and files that a sandboxed task does not see."""
        self.allow_host = allow_host
        self._executor_id = executor_id
        self._mode: Literal["auto", "require", "off"] = sandbox
        self._sandbox = Sandbox("", hidden)
        self._inherited = inherited(os.environ)

    async def setup(self) -> None:
        """Find the sandbox."""
        self._sandbox = await asyncio.to_thread(find_sandbox, self._mode, self._sandbox.hidden)

    async def new_pod(self, task_id: str, spec: ExecutorTaskSpec, folder: TaskFolder, output: Output) -> Pod:
        """A folder and the means to run commands in it."""
        runtime = spec.task.runtime
        if runtime.type != "host":
            raise BadRequestError(
                f"this executor cannot run a runtime of type {runtime.type!r}: it has no container engine",
                code="runtimeNotSupported",
                hint="use `runtime: {type: host}`, or an executor with a driver for containers",
            )
        if not self.allow_host:
            raise BadRequestError("this executor does not allow tasks on its host", code="hostNotAllowed")
        if spec.task.user:
            raise BadRequestError(
                f"a host task runs as the executor's user; user {spec.task.user!r} cannot be given",
                code="userNotSupported",
                hint="leave `user` out",
            )
        self._sandbox.require()
        output(b"Sandboxed by bubblewrap.\n" if self._sandbox.program else b"Not sandboxed.\n")
        tree = self._tree(task_id, folder)
        environment = {**self._inherited, **placed(folder, bool(self._sandbox.program)), **spec.environment}
        return ProcessPod(tree, folder, environment, self._mark(task_id), self._sandbox)

    async def end_leftover(self, task_id: str, folder: TaskFolder) -> None:
        """Kill the processes that bear the task's mark or are in its recorded sessions."""
        tree = self._tree(task_id, folder)
        await asyncio.to_thread(tree.recall)
        await tree.end(0)

    def _tree(self, task_id: str, folder: TaskFolder) -> ProcessTree:
        return ProcessTree(self._mark(task_id), folder.root, folder.processes)

    def _mark(self, task_id: str) -> str:
        return f"{self._executor_id}/{task_id}"


class ProcessPod:
    """The processes of one host task."""

    def __init__(
        self, tree: ProcessTree, folder: TaskFolder, environment: dict[str, str], mark: str, sandbox: Sandbox
    ) -> None:
        self.home = folder.home
        self.files = TaskRoot.of_folders(folder.home, folder.tmp)
        self._mark = mark
        self._tree = tree
        self._folder = folder
        self._environment = environment
        self._sandbox = sandbox
        self._children: list[Child] = []
        self._ending: asyncio.Task[None] | None = None

    async def exec(self, command: Exec, output: Output) -> int:
        """Execute a command in a session of its own."""
        if self._ending is not None:
            raise InternalError("the task has ended", code="taskEnded")
        folder = expand_home(command.folder, self.home, self.home)
        if not folder.is_dir():
            output(f"the working directory {command.folder} does not exist\n".encode())
            return 1
        arguments = self._sandbox.wrap(command.arguments, folder, self._folder, command.visible)
        environment = marked({**self._environment, **command.environment}, self._mark)
        try:
            child = Child(Command(arguments, folder, environment, command.tty), output)
        except OSError as error:
            output(f"{command.arguments[0]} cannot be executed: {error.strerror}\n".encode())
            return 1
        self._children.append(child)
        self._tree.started(child.pid)
        return await child.wait()

    async def write_script(self, text: str) -> str:
        """A file in the task's temporary folder, mode 0600."""
        path = f"{self._folder.tmp}/step-{secrets.token_hex(6)}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode() + b"\n")
        return path

    async def end(self, grace_seconds: float) -> None:
        """End all processes of the task."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._tree.end(grace_seconds))
        await asyncio.shield(self._ending)

    async def close(self) -> None:
        """Close what the commands left open."""
        for child in self._children:
            child.close()
        self.files.close()
