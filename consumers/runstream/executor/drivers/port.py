"""The interface that every driver implements."""

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
    """A command to run in a pod."""

    arguments: tuple[str, ...]
    folder: str
    """The working directory; `~` stands for the task's home."""
    environment: Mapping[str, str]
    """Variables added to the pod's own environment."""
    tty: bool = False
    visible: tuple[Path, ...] = ()
    """Folders of the machine that must be visible to the command."""
    keeps: Callable[[str], bool] = lambda _name: True
    """Returns whether the command inherits the pod's variable of this name."""


class NotStartedError(BadRequestError):
    """A command that could not be started: its working directory or program is missing or unusable."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, code="commandNotStarted")


class Pod(Protocol):
    """The environment in which one task runs."""

    files: TaskRoot
    """The task's file system, through which the executor does all work on the task's files."""

    async def exec(self, command: Exec, output: Output) -> int:
        """Run a command and return its exit status.

        Raises NotStartedError for a missing working directory or program: the step has exit status 1 (rule step-5).
        Ending the pod ends the command.
        """
        ...

    async def make_working_dir(self, path: str) -> None:
        """Create the task's working directory with its parents, before the first command."""
        ...

    def require_visible(self, path: Path) -> None:
        """Raise BadRequestError if a path of the machine lies in, or contains, a place hidden from tasks."""
        ...

    def sees(self, path: Path) -> bool:
        """Return whether the task may read this place of the machine, or one of its own."""
        ...

    async def write_script(self, text: str) -> str:
        """Write a script into the pod, readable only by its user; return its path there."""
        ...

    async def end(self, grace_seconds: float) -> None:
        """Terminate every process of the pod, and kill the remaining ones after the grace period. A second end does
        nothing."""
        ...

    async def close(self) -> None:
        """Release the resources of an ended pod."""
        ...


class Driver(Protocol):
    """A factory of pods on this machine."""

    allow_host: bool
    allow_pod: bool
    sandbox: str
    """How tasks are isolated from the machine, as text; known after `setup`."""

    async def setup(self) -> None:
        """Detect what this machine supports. Called first."""
        ...

    async def new_pod(self, task_id: str, spec: ExecutorTaskSpec, folder: TaskFolder, output: Output) -> Pod:
        """Create a pod for the task; `output` is the setup log. Raises a RunstreamError with the reason if that
        fails."""
        ...

    async def end_leftover(self, task_id: str, folder: TaskFolder) -> None:
        """End the processes of a task that an earlier process of this executor left running."""
        ...

    async def close(self) -> None:
        """Release the driver's resources; all pods have ended."""
        ...
