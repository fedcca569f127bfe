"""The small interface that every driver keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runstream.errors import BadRequestError
from runstream.executor.spec import ExecutorTaskSpec
from runstream.executor.task_root import TaskRoot
from runstream.executor.workdir import TaskFolder

Output = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Exec:
    """One command in a pod."""

    arguments: tuple[str, ...]
    folder: str
    """The working directory; `~` stands for the task's home."""
    environment: Mapping[str, str]
    """What is added to the pod's own environment."""
    tty: bool = False
    visible: tuple[Path, ...] = ()
    """Folders of the machine that the command has to see."""
    keeps: Callable[[str], bool] = lambda _name: True
    """Whether the command gets a variable of the pod's own environment, by its name."""


class NotStartedError(BadRequestError):
    """A command could not be started: its folder or its program is not there, or cannot be used."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, code="commandNotStarted")


class Pod(Protocol):
    """Where one task runs."""

    files: TaskRoot
    """The file system that the task sees: all that the executor does with files of the task goes through it."""

    async def exec(self, command: Exec, output: Output) -> int:
        """Execute a command and wait for its end; the exit status.

        Raises NotStartedError for a folder or a program that does not exist: the step has exit status 1 (rule step-5).
        When the pod is ended meanwhile, the command ends.
        """
        ...

    async def make_working_dir(self, path: str) -> None:
        """Make a folder for the task's commands, with its parents, before the first command."""
        ...

    def require_visible(self, path: Path) -> None:
        """Raises BadRequestError for a path of the machine that lies in a place hidden from tasks, or contains one."""
        ...

    def sees(self, path: Path) -> bool:
        """Whether the task may read this place of the machine, or it is one of its own."""
        ...

    async def write_script(self, text: str) -> str:
        """Put a script into the pod, readable by its user alone; its path in there."""
        ...

    async def end(self, grace_seconds: float) -> None:
        """End every process of the pod: asked first, and killed after the grace. A second end does nothing."""
        ...

    async def close(self) -> None:
        """Let go of everything; the pod has ended."""
        ...


class Driver(Protocol):
    """Makes pods on this machine."""

    allow_host: bool
    allow_pod: bool
    sandbox: str
    """How tasks are kept apart from the machine, for people; known after `setup`."""

    async def setup(self) -> None:
        """Find out what works on this machine; before anything else."""
        ...

    async def new_pod(self, task_id: str, spec: ExecutorTaskSpec, folder: TaskFolder, output: Output) -> Pod:
        """A pod for the task; `output` is the setup log. Raises a RunstreamError that says why it cannot be."""
        ...

    async def end_leftover(self, task_id: str, folder: TaskFolder) -> None:
        """End what an earlier process of this executor left running of a task."""
        ...

    async def close(self) -> None:
        """Let go of everything; all pods have ended."""
        ...
