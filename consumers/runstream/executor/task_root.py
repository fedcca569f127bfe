"""The file system that a task sees: its paths and its user, for work that the executor does there.

An absolute path, or an absolute link, is one in the task's own file system. In a sandbox that is the sandbox's root;
without one it is the task's own folders, and every other path is refused. No path leads out of them, whatever the
task's processes do to the tree meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import platform
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from runstream.errors import BadRequestError, InternalError
from runstream.executor.beneath import (
    FOLDER,
    AbsoluteLinkError,
    Links,
    closing,
    components,
    open_beneath,
    walk_beneath,
)

P = ParamSpec("P")
T = TypeVar("T")

_MAX_LINKS = 40
"""Maximum number of absolute links followed on one path."""
_SYS_SETGROUPS = {"x86_64": 116, "aarch64": 159}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_LIBC = ctypes.CDLL(None, use_errno=True)
_CAPABILITY_VERSION_3 = 0x20080522


class OutsideTaskError(BadRequestError):
    """A path that leads out of the task's own files; without a sandbox alone, since a sandbox has nothing else."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path!r} is outside of the task's own files: without a sandbox an absolute path is the machine's;"
            " use one below the working directory or `~`",
            code="pathOutsideTask",
        )


@dataclass(frozen=True, slots=True)
class TaskUser:
    """A user and group of this machine, as numbers."""

    uid: int
    gid: int


class TaskRoot:
    """The files of one task: opened, made and written. `close` it when the task has ended."""

    def __init__(self, home: str, places: Mapping[str, int], user: TaskUser | None = None) -> None:
        """Take over the descriptors in `places`, by the absolute path of each directory.

        `{"/": root}` is a whole file system. `home` is an absolute path in one of the places. `user` owns the files;
        None is the executor's own user.
        """
        self.home = home
        self.user = user
        self._places = dict(places)
        self._works: set[asyncio.Future[Any]] = set()
        """Threads started by `run`: they continue even when their caller is cancelled."""
        self._closed = False

    @classmethod
    def of_folders(cls, home: Path, *folders: Path, user: TaskUser | None = None) -> TaskRoot:
        """Return the root of a task without a sandbox, which has only these folders of the machine."""
        root = cls(str(home), {}, user)
        try:
            for folder in (home, *folders):
                root._places[str(folder)] = os.open(folder, FOLDER)
        except BaseException:
            root.close()
            raise
        return root

    def close(self) -> None:
        """Close the descriptors once no work uses them; a second close does nothing."""
        self._closed = True
        if not self._works:
            while self._places:
                os.close(self._places.popitem()[1])

    def path(self, text: str, folder: str = "~") -> str:
        """Return the absolute path of `text`, which may begin with `~`, relative to `folder`.

        Raises BadRequestError for the home of another user.
        """
        if text == "~" or text.startswith("~/"):
            return f"{self.home}/{text[2:]}".rstrip("/")
        if text.startswith("~"):
            raise BadRequestError(f"{text!r}: the home of another user is not available", code="invalidPath")
        return text if text.startswith("/") else f"{self.path(folder)}/{text}"

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """Open an absolute path and return its descriptor.

        Raises OutsideTaskError for a path that leads out, and OSError as `os.open` does.
        """
        wanted = path
        for _ in range(_MAX_LINKS):
            top, place, relative = self._place(wanted, path)
            links = Links.IN_ROOT if top == "/" else Links.BENEATH
            try:
                return _open(place, relative, flags, mode, links)
            except AbsoluteLinkError as link:
                wanted = link.beyond
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise OutsideTaskError(path) from error
                raise
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def open_folder(self, path: str) -> int:
        """Open an existing directory, as the starting point of further calls."""
        return self.open(path, FOLDER)

    def make_folder(self, path: str, mode: int = 0o755) -> int:
        """Open a directory; create it and its parents if they are missing.

        It goes down in single steps, so that a deep path takes linear time. Only a link or `..` is resolved from the
        top.
        """
        top, place, relative = self._place(path, path)
        parts = components(relative)
        here = os.open(".", FOLDER, dir_fd=place)
        try:
            for count, part in enumerate(parts, 1):
                below = _step(here, part, mode)
                if below is None:
                    below = self.open_folder("/".join((top.rstrip("/"), *parts[:count])))
                os.close(here)
                here = below
        except BaseException:
            os.close(here)
            raise
        return here

    def write(self, path: str, content: bytes, mode: int = 0o600) -> None:
        """Write a whole file, replacing an existing one; its directory must exist."""
        folder, _, name = path.rpartition("/")
        temporary = f".{secrets.token_hex(8)}"
        with closing(self.open_folder(folder or "/")) as parent:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                os.unlink(temporary, dir_fd=parent)
                raise

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work on these files in a thread, as the task's user, and return its result."""
        work: asyncio.Future[T] = asyncio.ensure_future(
            asyncio.to_thread(function, *args, **kwargs)
            if self.user is None
            else run_as(self.user, function, *args, **kwargs)
        )
        self._works.add(work)
        work.add_done_callback(self._done)
        return await asyncio.shield(work)

    def _done(self, work: asyncio.Future[Any]) -> None:
        self._works.discard(work)
        if not work.cancelled():
            work.exception()  # raised to the caller, if it still waits
        if self._closed:
            self.close()

    def _place(self, path: str, asked: str) -> tuple[str, int, str]:
        """Return the place that an absolute path lies in, its descriptor, and the path from there."""
        for top in sorted(self._places, key=len, reverse=True):
            if path == top or path.startswith(top.rstrip("/") + "/"):
                return top, self._places[top], path[len(top) :].lstrip("/") or "."
        raise OutsideTaskError(asked)


def _step(folder: int, name: str, mode: int) -> int | None:
    """Open a directory in an open one; create it if it is missing. Return None for `..` and what is no directory."""
    if name == "..":
        return None
    for _ in range(2):
        try:
            return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # a race
                os.mkdir(name, mode, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            return None
    return None


def _open(place: int, relative: str, flags: int, mode: int, links: Links) -> int:
    try:
        return open_beneath(place, relative, flags, mode, links=links)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    return walk_beneath(place, relative, flags, mode, links=links)  # reports where an absolute link leads


async def run_as(user: TaskUser, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in a thread that accesses files as this user, without any capability.

    The credentials of a thread cannot be given back, so the thread is new, and ends with the function.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():  # the caller was cancelled
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def work() -> None:
        value, error = None, None
        try:
            _become(user)
            value = function(*args, **kwargs)
        except BaseException as raised:  # noqa: BLE001 -- it is raised where the result is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name=f"files of user {user.uid}", daemon=True).start()
    return await result


def _become(user: TaskUser) -> None:
    """Give this thread the file access of a user. libc's own calls would change every thread of the process."""
    libc = _LIBC
    machine = platform.machine()
    if machine not in _SYS_SETGROUPS:
        raise InternalError(f"the executor cannot act as another user on {machine}", code="machineNotSupported")
    if libc.syscall(_SYS_SETGROUPS[machine], 0, None) != 0:
        raise OSError(ctypes.get_errno(), "setgroups")
    libc.setfsgid(user.gid)
    libc.setfsuid(user.uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.syscall(_SYS_CAPSET[machine], header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    if libc.setfsuid(-1) != user.uid or libc.setfsgid(-1) != user.gid:  # the only way to see what they are
        raise InternalError(f"the executor cannot act as user {user.uid}", code="userNotAvailable")
