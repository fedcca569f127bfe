"""The places of this machine that a sandboxed task sees.

A sandbox has the system's directories, read-only, and the task's own home and /tmp. Everything else of the machine is
missing: homes, /run with its sockets, /var, other tasks, all files of the service. Settings add more places.
`runstream.executor.spawner.namespaces` creates the sandbox, `docs/explanation/sandbox.md` explains it.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runstream.errors import BadRequestError
from runstream.executor.spawner import plan
from runstream.executor.task_root import TaskUser
from runstream.executor.workdir import TaskFolder

SYSTEM_PLACES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store")
HOME = "/home/runstream"
"""The home of every sandboxed task."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108
"""The directory of every sandbox whose files are in memory."""
USER_NAME = "runstream"
INSIDE_UID = 1000
RESERVED_PLACES = ("/", "/home", HOME, "/tmp", "/proc", "/dev", "/sys")  # noqa: S108
"""Places that settings cannot add: every sandbox has its own."""

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\(\d{3})")
_RESOLVER = Path("/etc/resolv.conf")
_FIRST_UID, _UIDS = 1_900_000_000, 100_000_000
"""User ids that no distribution and no container engine assigns."""
_SMALL_FIRST_UID, _SMALL_UIDS = 52_000, 8_000
"""The same where only 16 bits are mapped, as in many containers."""


@dataclass(frozen=True, slots=True)
class Visible:
    """The places common to the sandboxes of an executor."""

    readonly: tuple[str, ...] = ()
    """Places of the machine in addition to the system's."""
    writable: tuple[str, ...] = ()
    hidden: tuple[Path, ...] = ()
    """Places that no task may see, even inside a visible one."""
    network: bool = True

    def sandbox(self, folder: TaskFolder, user: TaskUser, accounts: Sequence[tuple[str, str]]) -> plan.Sandbox:
        """Return the sandbox of a task whose processes run as `user` on the machine."""
        readonly = (*SYSTEM_PLACES, *self.readonly)
        visible = (*readonly, *self.writable)
        return plan.Sandbox(
            uid=user.uid,
            gid=user.gid,
            inside_uid=INSIDE_UID,
            home=str(folder.home),
            inside_home=HOME,
            tmp=str(folder.tmp),
            readonly=(*readonly, *_resolver(visible)),
            writable=self.writable,
            masked=tuple(str(path) for path in _outermost(self.hidden) if _lies_in(str(path), visible)),
            files=tuple(accounts),
            network=self.network,
        )

    def lists(self, path: Path) -> bool:
        """Return whether a place is in every sandbox, after resolving links."""
        real = path.resolve()
        if any(real.is_relative_to(hidden.resolve()) for hidden in self.hidden):
            return False
        places = (*SYSTEM_PLACES, *self.readonly, *self.writable)
        return any(real.is_relative_to(Path(place).resolve()) for place in places)

    def require_visible(self, path: Path) -> None:
        """Raise BadRequestError if a path lies in, or contains, a hidden place, after resolving links."""
        real = path.resolve()
        for hidden in (place.resolve() for place in self.hidden):
            if real == hidden or hidden in real.parents or real in hidden.parents:
                raise BadRequestError(
                    f"{path} is hidden from tasks: it contains, or lies in, files of the service",
                    code="hiddenRepository",
                    hint="move the repository to a folder of its own",
                )


def task_user(task_id: str) -> TaskUser:
    """Return the user of a sandboxed task's processes: the executor's, or one of the task's own if that is root."""
    if os.geteuid() != 0:
        return TaskUser(os.geteuid(), os.getegid())
    mapped = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    first, count = (_FIRST_UID, _UIDS) if mapped > _FIRST_UID + _UIDS else (_SMALL_FIRST_UID, _SMALL_UIDS)
    number = first + zlib.crc32(task_id.encode()) % count
    return TaskUser(number, number)


def found_places(sandbox: plan.Sandbox) -> tuple[object, ...]:
    """Return what the machine has at the places of a sandbox now: which files, which links, which mounts.

    A sandbox that was made when it had others shows what is no longer there, lacks what is new, and no longer hides a
    hidden place that was replaced.
    """
    shown = (*sandbox.readonly, *sandbox.writable)
    places = (*shown, *sandbox.masked, *(path for pair in sandbox.files for path in pair))
    mounts = tuple(
        line for line in os.fsdecode(_MOUNTS.read_bytes()).splitlines() if _lies_in(_mount_point(line), shown)
    )
    return (*map(_identity, places), mounts)


def _identity(path: str) -> tuple[int, int, str] | None:
    try:
        found = os.lstat(path)
        return found.st_dev, found.st_ino, os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""  # noqa: PTH115
    except OSError:  # it is not there, or cannot be reached
        return None


def _mount_point(line: str) -> str:
    """Return the path in a line of mountinfo, where blanks are octal numbers."""
    path = line.split(" ", 5)[4]
    return _OCTAL.sub(lambda number: chr(int(number[1], 8)), path) if "\\" in path else path


def accounts(folder: Path) -> tuple[tuple[str, str], ...]:
    """Write the account files of sandboxes to a folder: copies of the machine's, with the task's user added.

    Return pairs of a path in the sandbox and the file to show there, for each account file that the machine has.
    """
    lines = {
        "passwd": f"{USER_NAME}:x:{INSIDE_UID}:{INSIDE_UID}:Runstream task:{HOME}:/bin/sh",
        "group": f"{USER_NAME}:x:{INSIDE_UID}:",
    }
    made = []
    for name, own in lines.items():
        inside = Path("/etc") / name
        if inside.is_file():
            kept = [line for line in _lines(inside) if line.split(":")[2:3] != [str(INSIDE_UID)]]
            file = folder / name
            file.write_text("\n".join([*kept, own]) + "\n")
            file.chmod(0o644)
            made.append((str(inside), str(file)))
    return tuple(made)


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines()


def _resolver(visible: Iterable[str]) -> tuple[str, ...]:
    """Return the file that /etc/resolv.conf links to, unless it is visible anyway."""
    real = _RESOLVER.resolve()
    return (str(real),) if real.is_file() and not _lies_in(str(real), visible) else ()


def _lies_in(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)


def _outermost(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the paths that do not lie in another one."""
    return tuple(dict.fromkeys(path for path in paths if not any(other in path.parents for other in paths)))
