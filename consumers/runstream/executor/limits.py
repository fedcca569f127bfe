"""The limits of a task's resources, and which of them this machine can enforce.

The kernel limits processes per user. In a sandbox this is exact, because it counts only those of the sandbox's user
namespace (Linux 5.14 or later). Without a sandbox it counts all processes of the executor's user, so the limit is added
to those that the user has already; it does not hold for root. A memory limit needs a writable cgroup (version 2) with
the memory controller.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from runstream.counting import counted

_MOUNTS = Path("/proc/self/mountinfo")
_NAMESPACED_COUNTS = (5, 14)


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
        if sandboxed and _release() >= _NAMESPACED_COUNTS:
            found["RLIMIT_NPROC"] = self.processes
        elif not sandboxed and self.processes and user_processes is not None:
            found["RLIMIT_NPROC"] = user_processes + self.processes
        return (("RLIMIT_CORE", 0), *((name, value) for name, value in found.items() if value))

    def described(self, *, sandboxed: bool, controllers: frozenset[str], ordinary: bool) -> str:
        """Return the line of the setup log with the limits that are enforced, and those that are not.

        `ordinary` says that the executor's user is not root.
        """
        exact = "pids" in controllers or (sandboxed and _release() >= _NAMESPACED_COUNTS)
        by_user = not exact and not sandboxed and ordinary
        more = " more than the user had when the task's agent began" if by_user else ""
        wanted = {
            counted(self.processes, "process", "processes") + more: self.processes,
            f"{self.open_files} open files a process": self.open_files,
            f"{self.file_bytes} bytes a file": self.file_bytes,
            f"{self.memory_bytes} bytes of memory": self.memory_bytes,
        }
        enforced = (exact or by_user, True, True, "memory" in controllers)
        limits = [(text, holds) for (text, value), holds in zip(wanted.items(), enforced, strict=True) if value]
        held = ", ".join(text for text, holds in limits if holds)
        missing = ", ".join(text for text, holds in limits if not holds)
        parts = [f"Limits: {held}." if held else "", f"Not enforced here: {missing}." if missing else ""]
        return " ".join(filter(None, parts))


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
    """The cgroup (version 2) in which this process can create groups."""

    parent: Path | None = None
    controllers: frozenset[str] = field(default_factory=frozenset)
    """The controllers for the groups of tasks: `memory`, `pids`."""

    def remove(self) -> None:
        """Remove the parent, once no task has a group."""
        if self.parent is not None:
            with contextlib.suppress(OSError):  # The group is still in use; the next start of the executor removes it.
                self.parent.rmdir()

    def group(self, limits: Limits) -> ControlGroup | None:
        """Create a group for a task; return None if that is not possible."""
        if self.parent is None:
            return None
        path = self.parent / f"task-{secrets.token_hex(8)}"
        try:
            path.mkdir()
        except OSError:  # The parent was removed.
            return None
        group = ControlGroup(path)
        with contextlib.suppress(OSError):  # The controller was removed meanwhile: the task has no such limit.
            if limits.processes and "pids" in self.controllers:
                (path / "pids.max").write_text(str(limits.processes))
            if limits.memory_bytes and "memory" in self.controllers:
                (path / "memory.max").write_text(str(limits.memory_bytes))
                (path / "memory.swap.max").write_text("0")
        return group


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """The group of one task."""

    path: Path

    def kill(self) -> bool:
        """Kill all processes of the group at once; return False if the kernel does not support it."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError:  # before Linux 5.14
            return False
        return True

    def out_of_memory(self) -> bool:
        """Return whether the kernel killed a process because the task had used up its memory."""
        try:
            events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
        except (OSError, ValueError):
            return False
        return int(events.get("oom_kill", 0)) > 0

    def remove(self) -> None:
        """Remove the empty group."""
        with contextlib.suppress(OSError):  # A process is still exiting; the group is harmless.
            self.path.rmdir()


def control_groups(name: str) -> ControlGroups:
    """Find the cgroup below this process's own in which it can create groups; `name` is the parent of all task
    groups."""
    mount = _cgroup2()
    if mount is None:
        return ControlGroups()
    own = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "/")
    top = mount / own.lstrip("/")
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


def _cgroup2() -> Path | None:
    for line in _MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None
