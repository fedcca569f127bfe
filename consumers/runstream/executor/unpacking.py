"""Unpacking a tar into a folder of a task (rules step-20 and step-22). Blocks: use a thread and the task's user.

An archive is hostile input, and the task's own processes may change the folder meanwhile: everything is opened beneath
the folder without following links, nothing that exists is opened for writing. Folders merge, and a file that is
there with the same content and mode is no conflict.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from typing import BinaryIO

from runstream.errors import BadRequestError
from runstream.executor.beneath import FOLDER, closing, open_beneath
from runstream.executor.ending import StoppedError
from runstream.executor.packing import COPY_BYTES, MAX_PATH_BYTES
from runstream.executor.removal import printable
from runstream.executor.task_root import TaskRoot

_MAX_HEADER_BYTES = 1 << 20
"""Of the extended headers of one entry, which are read into memory."""
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_EXISTING_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_MAX_TIME = 1 << 34
_UNREADABLE = (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError)


class _BoundedEntry(tarfile.TarInfo):
    """An entry whose headers take a bounded amount of memory."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        kinds = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
        if self.type in (*kinds, tarfile.GNUTYPE_LONGLINK) and self.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


class Unpacking:
    """The archives that one step restores into one folder."""

    def __init__(self, files: TaskRoot, destination: str, stopped: threading.Event) -> None:
        """`destination` is a path of the task; the folder is made where it is missing."""
        self._files = files
        self._path = destination
        self._destination = -1
        self._stopped = stopped
        self._origins: dict[str, str] = {}
        """Which task each file came from."""
        self._parent: tuple[str, int] | None = None
        """The directory of the last entry: the next one is often in it, or below."""

    def unpack(self, archive: BinaryIO, task: str) -> int:
        """Unpack what `task` saved and return the number of entries.

        Raises BadRequestError for an entry that would leave the folder, replace something that differs, or is of a
        kind that our archives never have, and for a file that is no tar.
        """
        with closing(self._open_destination()) as self._destination:
            return self._unpack(archive, task)

    def _open_destination(self) -> int:
        try:
            return self._files.make_folder(self._path)
        except OSError as error:
            raise BadRequestError(
                f"dest_dir {printable(self._path)!r} cannot be used: {error.strerror}", code="destinationNotFolder"
            ) from error

    def _unpack(self, archive: BinaryIO, task: str) -> int:
        made: list[tuple[str, int]] = []
        count = 0
        try:
            with tarfile.open(fileobj=archive, mode="r|", tarinfo=_BoundedEntry) as tar:
                for entry in tar:
                    if self._stopped.is_set():
                        raise StoppedError
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                    self._unpack_one(tar, entry, task, made)
                    count += 1
        except _UNREADABLE as error:
            raise BadRequestError(f"the archive cannot be read: {error}", code="archiveCorrupt") from error
        except OSError as error:
            where = f"{printable(str(error.filename))}: " if error.filename else ""
            raise BadRequestError(f"{where}{error.strerror}", code="fileNotWritten") from error
        finally:
            self._forget_parent()
        for name, mode in reversed(made):  # only now: one may be read-only
            with (
                contextlib.suppress(OSError),
                closing(  # it went meanwhile
                    open_beneath(self._destination, name, os.O_RDONLY | os.O_DIRECTORY)
                ) as folder,
            ):
                os.fchmod(folder, mode)
        return count

    def _unpack_one(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, task: str, made: list[tuple[str, int]]) -> None:
        folders, name = _split(entry.name)
        path = "/".join((*folders, name))
        parent = self._open_parent(folders, entry)
        if entry.isdir():
            with contextlib.suppress(FileExistsError):  # folders merge
                os.mkdir(name, 0o700, dir_fd=parent)
                made.append((path, stat.S_IMODE(entry.mode) & 0o777))
                return
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise self._conflict(path, task)
            return
        try:
            self._make(tar, entry, parent, name)
        except FileExistsError:
            if not self._is_same(tar, entry, parent, name):
                raise self._conflict(path, task) from None
        self._origins.setdefault(path, task)

    def _make(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str) -> None:
        """Make what is no directory. Raises FileExistsError when its name is taken."""
        if entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.islnk():
            with self._link_target(entry) as (folder, first):
                os.link(first, name, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
        elif entry.isreg() or entry.ischr() or entry.isblk() or entry.isfifo():
            with os.fdopen(os.open(name, _NEW_FILE, 0o600, dir_fd=parent), "wb") as file:
                for chunk in self._content(tar, entry):
                    file.write(chunk)
                os.fchmod(file.fileno(), _file_mode(entry))
                file.flush()
                time = min(max(0.0, float(entry.mtime)), _MAX_TIME)
                os.utime(file.fileno(), (time, time))
        else:
            raise _refused(entry, "is of an unknown kind")

    def _is_same(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str) -> bool:
        """Whether what is there is what the entry would be."""
        if entry.issym():
            try:
                return os.readlink(name, dir_fd=parent) == entry.linkname
            except OSError:
                return False
        with _existing(parent, name) as there:
            if there is None:
                return False
            if entry.islnk():
                with self._link_target(entry) as (folder, first), _existing(folder, first) as target:
                    return target is not None and _equal(there, target)
            if stat.S_IMODE(os.fstat(there.fileno()).st_mode) != _file_mode(entry):
                return False
            for chunk in self._content(tar, entry):
                if there.read(len(chunk)) != chunk:
                    return False
            return not there.read(1)

    def _content(self, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
        source = tar.extractfile(entry) if entry.isreg() else None
        while source is not None and (chunk := source.read(COPY_BYTES)):
            if self._stopped.is_set():
                raise StoppedError
            yield chunk

    @contextlib.contextmanager
    def _link_target(self, entry: tarfile.TarInfo) -> Iterator[tuple[int, str]]:
        """The directory and the name of the regular file that a hard link is another name of."""
        folders, name = _split(entry.linkname)
        try:
            parent = open_beneath(self._destination, "/".join(folders) or ".", FOLDER)
        except OSError as error:
            raise _refused(entry, "refers to no file of the archive") from error
        with closing(parent):
            try:
                mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            except OSError as error:
                raise _refused(entry, "refers to no file of the archive") from error
            if not stat.S_ISREG(mode):
                raise _refused(entry, "refers to no file of the archive")
            yield parent, name

    def _open_parent(self, folders: list[str], entry: tarfile.TarInfo) -> int:
        """Return the open directory that an entry goes into; it is made where it is missing."""
        wanted = "/".join(folders)
        if self._parent is not None and self._parent[0] == wanted:
            return self._parent[1]
        start, rest = self._destination, wanted
        if self._parent is not None and wanted.startswith(f"{self._parent[0]}/"):
            start, rest = self._parent[1], wanted[len(self._parent[0]) + 1 :]
        try:
            found = _open_or_make(start, rest)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
                raise _refused(entry, "passes through a link or a file") from error
            raise
        self._forget_parent()
        self._parent = (wanted, found)
        return found

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _conflict(self, path: str, task: str) -> BadRequestError:
        first = self._origins.get(path)
        other = (
            f"it differs between task {first!r} and task {task!r}"
            if first is not None
            else (f"it is there already, and differs from what task {task!r} saved")
        )
        return BadRequestError(f"{printable(path)!r} cannot be restored: {other}", code="fileExists")


def _open_or_make(start: int, path: str) -> int:
    try:
        return open_beneath(start, path or ".", FOLDER)
    except FileNotFoundError:
        pass  # some of it is made below
    here = os.dup(start)
    try:
        for part in path.split("/"):
            with contextlib.suppress(FileExistsError):  # it is opened then
                os.mkdir(part, 0o755, dir_fd=here)
            below = open_beneath(here, part, FOLDER)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


@contextlib.contextmanager
def _existing(folder: int, name: str) -> Iterator[BinaryIO | None]:
    """A regular file that is there, opened for reading; None for anything else."""
    try:
        descriptor = open_beneath(folder, name, _EXISTING_FILE)
    except OSError:
        yield None
        return
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        yield None
        return
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _equal(one: BinaryIO, other: BinaryIO) -> bool:
    while chunk := one.read(COPY_BYTES):
        if other.read(len(chunk)) != chunk:
            return False
    return not other.read(1)


def _file_mode(entry: tarfile.TarInfo) -> int:
    """No set-user-id: who packed it is not who runs it."""
    return stat.S_IMODE(entry.mode) & 0o777


def _split(name: str) -> tuple[list[str], str]:
    """Return the folders and the name of an entry."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.startswith("/") or ".." in parts or len(os.fsencode(name)) > MAX_PATH_BYTES:
        raise BadRequestError(
            f"the archive's entry {printable(name)!r} leads out of the destination", code="archiveEntryRefused"
        )
    return parts[:-1], parts[-1]


def _refused(entry: tarfile.TarInfo, why: str) -> BadRequestError:
    return BadRequestError(f"the archive's entry {printable(entry.name)!r} {why}", code="archiveEntryRefused")
