"""The limits of a task's resources, and which of them this machine can enforce.

The kernel limits processes per user. In a sandbox this is exact, because it counts only those of the sandbox's user
namespace (Linux 5.14 or later). Without a sandbox it counts all processes of the executor's user, so the limit is added
to those that the user has already; it does not hold for root, whose tasks need a cgroup with the `pids` controller, of
either version. A memory limit needs a writable cgroup (version 2) with the memory controller.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from runstream.counting import counted

_MOUNTS = Path("/proc/self/mountinfo")
_NAMESPACED_COUNTS = (5, 14)
FILE_TOO_LARGE = 128 + signal.SIGXFSZ
"""The exit status of a shell whose process wrote more to a file than it may."""
TOO_LARGE = b"A file would have become larger than a task's files may be (executor.task_file_bytes).\n"
_SIGNS = (
    (b"Too many open files", "executor.task_open_files"),
    (b"Cannot fork", "executor.task_processes"),
    (b"fork: Resource temporarily unavailable", "executor.task_processes"),
    (b"fork: retry: Resource temporarily unavailable", "executor.task_processes"),
)
"""Last output of programs to which the kernel refuses a descriptor or a process."""
_DISK_SIGNS = (
    (b"Disk quota exceeded", "executor.task_disk_bytes"),
    (b"No space left on device", "executor.task_disk_bytes"),
)
"""The same of programs to which it refuses a write; without a limit the disk itself is full."""
TAIL_BYTES = 4096
"""Size of the last output in which these signs are sought."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The resource limits of a task; 0 for no limit."""

    processes: int = 0
    """Maximum number of processes and threads of a task."""
    open_files: int = 0
    """Maximum number of open files of a process."""
    file_bytes: int = 0
    """Maximum size of a file, in bytes."""
    memory_bytes: int = 0
    """Maximum memory of all processes of a task together, in bytes."""

    def resources(self, *, sandboxed: bool, user_processes: int | None = None) -> tuple[tuple[str, int], ...]:
        """Return the resource limits of the task's processes, by their name in `resource`.

        `user_processes` is how many processes the task's user has already; None for root, or if it is not known.
        """
        found = {"RLIMIT_NOFILE": self.open_files, "RLIMIT_FSIZE": self.file_bytes}
        if counted_in_sandbox(sandboxed):
            found["RLIMIT_NPROC"] = self.processes
        elif not sandboxed and self.processes and user_processes is not None:
            found["RLIMIT_NPROC"] = user_processes + self.processes
        return (("RLIMIT_CORE", 0), *((name, value) for name, value in found.items() if value))

    def memory_of(self, named: int) -> int:
        """Return the memory limit of a container that names one itself, or 0; the lower of both holds."""
        return min(filter(None, (named, self.memory_bytes)), default=0)

    def listed(self) -> str:
        """Return the limits that are set, as a list in a sentence."""
        return ", ".join(text for text, value in self._texts().items() if value)

    def _texts(self, more: str = "") -> dict[str, int]:
        return {
            counted(self.processes, "process", "processes") + more: self.processes,
            f"{self.open_files} open files a process": self.open_files,
            f"{self.file_bytes} bytes a file": self.file_bytes,
            f"{self.memory_bytes} bytes of memory": self.memory_bytes,
        }

    def described(self, *, sandboxed: bool, controllers: frozenset[str], ordinary: bool) -> str:
        """Return the line of the setup log with the limits that are enforced, and those that are not.

        `ordinary` says that the executor's user is not root.
        """
        exact = "pids" in controllers or counted_in_sandbox(sandboxed)
        by_user = not exact and not sandboxed and ordinary
        more = " more than the user had when the task's agent began" if by_user else ""
        wanted = self._texts(more)
        enforced = (exact or by_user, True, True, "memory" in controllers)
        limits = [(text, holds) for (text, value), holds in zip(wanted.items(), enforced, strict=True) if value]
        held = ", ".join(text for text, holds in limits if holds)
        missing = ", ".join(text for text, holds in limits if not holds)
        parts = [f"Limits: {held}." if held else "", f"Not enforced here: {missing}." if missing else ""]
        return " ".join(filter(None, parts))


def probable_limit(tail: bytes, *, disk: bool = False) -> bytes:
    """Return a line that names the limit of which the last output of a failed command speaks; empty for none.

    `disk` says that the system refuses writes at the limit of the task's disk.
    """
    for sign, setting in (*_SIGNS, *_DISK_SIGNS * disk):
        if sign in tail:
            return f"The task has probably reached a limit ({setting}).\n".encode()
    return b""


def counted_in_sandbox(sandboxed: bool) -> bool:
    """Return whether the kernel counts the processes of a task apart from all others by its sandbox."""
    return sandboxed and _release() >= _NAMESPACED_COUNTS


def processes_of_user() -> int | None:
    """Return the number of processes and threads of this process's user; None for root, whom no limit holds."""
    user = os.geteuid()
    if user == 0:
        return None
    count = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):  # the process has ended
                found = os.stat(f"/proc/{name}/task")  # noqa: PTH116
                count += found.st_nlink - 2 if found.st_uid == user else 0
    return count


def _release() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)


@dataclass(frozen=True, slots=True)
class ControlGroups:
    """The cgroups in which this process can create groups."""

    parent: Path | None = None
    """The parent group in the hierarchy of version 2."""
    controllers: frozenset[str] = field(default_factory=frozenset)
    """The controllers for the groups of tasks: `memory`, `pids`."""
    pids: Path | None = None
    """Of version 1, with the controller `pids`; None where version 2 has it, or where it cannot be had."""

    def remove(self) -> None:
        """Remove the parents, once no task has a group."""
        for folder in filter(None, (self.parent, self.pids)):
            with contextlib.suppress(OSError):  # The group is still in use; the next start of the executor removes it.
                folder.rmdir()

    def group(self, limits: Limits) -> ControlGroup | None:
        """Create a group for a task, in each version that has something for it; return None if that is not possible."""
        name = f"task-{secrets.token_hex(8)}"
        path = _created(self.parent, name)
        if path is not None:
            with contextlib.suppress(OSError):  # The controller was removed meanwhile: the task has no such limit.
                if limits.processes and "pids" in self.controllers:
                    (path / "pids.max").write_text(str(limits.processes))
                if limits.memory_bytes and "memory" in self.controllers:
                    (path / "memory.max").write_text(str(limits.memory_bytes))
                    (path / "memory.swap.max").write_text("0")
        pids = _created(self.pids, name) if limits.processes else None
        if pids is not None:
            with contextlib.suppress(OSError):
                (pids / "pids.max").write_text(str(limits.processes))
        return ControlGroup(path, pids) if path is not None or pids is not None else None


def _created(parent: Path | None, name: str) -> Path | None:
    if parent is not None:
        with contextlib.suppress(OSError):  # The parent was removed.
            (parent / name).mkdir()
            return parent / name
    return None


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """The group of one task."""

    path: Path | None
    """The group in the hierarchy of version 2."""
    pids: Path | None = None
    """The group in the hierarchy of version 1 that has the controller `pids`."""

    def kill(self) -> bool:
        """Kill all processes of the group at once; return False if the kernel does not support it."""
        if self.path is None:
            return False
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError:  # before Linux 5.14
            return False
        return True

    def out_of_memory(self) -> bool:
        """Return whether the kernel killed a process because the task had used up its memory."""
        if self.path is None:
            return False
        try:
            events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
        except (OSError, ValueError):
            return False
        return int(events.get("oom_kill", 0)) > 0

    def remove(self) -> None:
        """Remove the empty group."""
        for folder in filter(None, (self.path, self.pids)):
            with contextlib.suppress(OSError):  # A process is still exiting; the group is harmless.
                folder.rmdir()


def control_groups(name: str) -> ControlGroups:
    """Find the cgroups below this process's own in which it can create groups; `name` is the parent of all task
    groups."""
    found = _version_2(name)
    return found if "pids" in found.controllers else replace(found, pids=_pids_of_version_1(name))


def counts_processes(executor: int) -> bool:
    """Return whether the cgroups of a running executor, or of a service with one, bound the processes of its tasks."""
    try:
        if (top := _version_1_of(executor)) is not None and any(top.glob("runstream-*")):
            return True
        parents = top.glob("runstream-*") if (top := _version_2_of(executor)) is not None else ()
        return any("pids" in (parent / "cgroup.subtree_control").read_text().split() for parent in parents)
    except OSError:  # it has ended
        return False


def _version_1_of(process: int | str) -> Path | None:
    """Return the process's cgroup of version 1 with the controller `pids`."""
    mount = _mounted(lambda kind, options: kind == "cgroup" and "pids" in options.split(","))
    return None if mount is None else _joined(mount, process, "pids")


def _version_2_of(process: int | str) -> Path | None:
    mount = _mounted(lambda kind, _: kind == "cgroup2")
    return None if mount is None else _joined(mount, process, "") or mount


def _joined(mount: Path, process: int | str, controller: str) -> Path | None:
    """Return the folder of the process's cgroup in the hierarchy of this controller; version 2 has no name for it."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return mount / path.lstrip("/")
    return None


def _pids_of_version_1(name: str) -> Path | None:
    top = _version_1_of("self")
    if top is None:
        return None
    parent = top / f"runstream-{name}"
    try:
        parent.mkdir(exist_ok=True)
        for left in parent.glob("task-*"):  # The previous process of this executor left it.
            with contextlib.suppress(OSError):  # It still has processes, which are ended by their records.
                left.rmdir()
        probe = parent / "probe"
        probe.mkdir()
        try:
            (probe / "pids.max").write_text("1")
        finally:
            probe.rmdir()
    except OSError:
        return None
    return parent


def _version_2(name: str) -> ControlGroups:
    top = _version_2_of("self")
    if top is None:
        return ControlGroups()
    parent = top / f"runstream-{name}"
    try:
        for folder in (top, parent):
            folder.mkdir(exist_ok=True)
            for controller in ("memory", "pids"):
                with contextlib.suppress(OSError):  # The group is not delegated, or contains processes.
                    (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        enabled = frozenset((parent / "cgroup.subtree_control").read_text().split())
        if not (parent / "cgroup.kill").exists() or not os.access(parent / "cgroup.procs", os.W_OK):
            return ControlGroups()
    except OSError:
        return ControlGroups()
    for left in parent.glob("task-*"):  # The previous process of this executor left it.
        ControlGroup(left).kill()
        ControlGroup(left).remove()
    return ControlGroups(parent, enabled)


def _mounted(wanted: Callable[[str, str], bool]) -> Path | None:
    """Return where the first mount is whose kind and options are wanted."""
    for line in _MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if wanted(kind, options):
            return Path(before.split()[4])
    return None
