"""The interface that every driver implements.

A driver makes pods. A pod is the environment of one task: it runs commands, and gives access to the task's files as the
task's user. What a task does is the same in every pod; only these differ between drivers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from runstream.errors import BadRequestError
from runstream.events.run_config import SaveContent
from runstream.executor.drivers.capabilities import Capabilities
from runstream.executor.spec import ExecutorTaskSpec
from runstream.executor.steps.archives import Packed
from runstream.executor.workdir import TaskFolder

Output = Callable[[bytes], None]
ServiceOutput = Callable[[int], Output]
"""Returns the output for a service of the pod, by its number from 1."""


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


class Unpacks(Protocol):
    """The restoring of archives by one step into one folder."""

    async def unpack(self, archive: BinaryIO, task: str) -> int:
        """Unpack the archive that `task` saved and return the number of entries.

        Raises BadRequestError for a file that is not a tar, and for an entry that would leave the folder or replace a
        different file.
        """


class Files(Protocol):
    """The files that a task sees, for work that the executor does there as the task's user."""

    home: str
    """The task's home, an absolute path of the task."""

    def path(self, text: str, folder: str = "~") -> str:
        """Return the absolute path of `text`, which may begin with `~`, relative to `folder`.

        Raises BadRequestError for the home of another user.
        """

    async def make_folder(self, path: str, mode: int = 0o755) -> None:
        """Create a directory and its parents if they are missing."""

    async def write(self, path: str, content: bytes, mode: int = 0o600) -> None:
        """Write a whole file, replacing an existing one; its directory must exist."""

    async def read(self, path: str, limit: int) -> bytes:
        """Return the content of a regular file. Raises BadRequestError for one that has more than `limit` bytes, or
        cannot be read."""

    async def pack(
        self, target: BinaryIO, contents: Sequence[SaveContent], folder: str, stopped: threading.Event
    ) -> Packed:
        """Write a tar of the files that `contents` select; their sources are relative to `folder`.

        Raises BadRequestError for a source that is not a folder, a malformed pattern, two different files with one
        path, and a file that changes meanwhile or cannot be read.
        """

    def unpacking(self, destination: str, stopped: threading.Event, *, replace: bool = False) -> Unpacks:
        """Return the means to restore archives into a folder, which is created if it is missing.

        With `replace`, files that are there are replaced; otherwise they must be the same.
        """


class Pod(Protocol):
    """The environment in which one task runs."""

    @property
    def files(self) -> Files:
        """The task's files."""

    async def exec(self, command: Exec, output: Output) -> int:
        """Run a command and return its exit status.

        Raises NotStartedError for a missing working directory or program: the step has exit status 1 (rule step-5).
        Ending the pod ends the command.
        """

    async def make_working_dir(self, path: str) -> None:
        """Create the task's working directory with its parents, before the first command."""

    def require_visible(self, path: Path) -> None:
        """Raise BadRequestError if a path of the machine lies in, or contains, a place hidden from tasks."""

    def sees(self, path: Path) -> bool:
        """Return whether the task may read this place of the machine, or one of its own."""

    def may_read(self, path: Path) -> bool:
        """Return whether the permissions of a place of the machine allow the task's user to read it."""

    async def find_in(self, folder: Path) -> str:
        """Return the path at which commands find a folder of the machine that is `visible` to them.

        A pod whose commands see no folder of the machine copies it into the task's home.
        """
        ...

    async def write_script(self, text: str) -> str:
        """Write a script into the pod, readable only by its user; return its path there."""

    async def end(self, grace_seconds: float) -> None:
        """Terminate every process of the pod, and kill the remaining ones after the grace period. A second end does
        nothing."""

    async def close(self) -> None:
        """Release the resources of an ended pod, and remove what belongs to it."""


class Driver(Capabilities, Protocol):
    """A factory of pods."""

    async def setup(self) -> None:
        """Detect what this machine supports. Called first."""

    async def new_pod(
        self, task_id: str, spec: ExecutorTaskSpec, folder: TaskFolder, output: Output, services: ServiceOutput
    ) -> Pod:
        """Create a pod for the task; `output` is the setup log. Raises a RunstreamError with the reason if that
        fails."""

    async def end_leftover(self, task_id: str, folder: TaskFolder) -> None:
        """End what an earlier process of this executor left of a task: its processes, its containers."""

    async def sweep(self) -> None:
        """End what earlier processes of this executor left of any task, before the first one starts."""

    async def close(self) -> None:
        """Release the driver's resources; all pods have ended."""
