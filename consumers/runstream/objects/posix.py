"""Objects as files below `<root>/data`, written in `<root>/tmp` and renamed; all file work runs in threads.

`FileObjects` stores them; a subclass says which file an object is and in which order files are listed. `PosixObjects`
names files by their objects' own paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, Self, TypeVar

from runstream.atomic_files import TemporaryFile, sweep, sync_file, sync_folder
from runstream.errors import BadRequestError, InternalError
from runstream.objects.port import CHUNK_BYTES, ByteSource, Object, elements, not_exist, source_chunks
from runstream.open_files import out_of_files, too_many_open_files

FOLDER_MODE = 0o770
_FILE_MODE = 0o660
_PAGE = 1000
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_PLACE_ATTEMPTS = 20
"""Attempts to name an object in a folder that concurrent deletions keep removing."""
_NOT_LINKABLE = frozenset({errno.EEXIST, errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
"""Errors after which a link alone cannot store an object: the name is taken, another file system, or one without
links."""
T = TypeVar("T")


class FileObjects(ABC):
    """An object storage in a folder of the local disk."""

    def __init__(self, root: Path) -> None:
        self._data = root / "data"
        self._tmp = root / "tmp"
        for folder in (self._data, self._tmp):
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._folders = Folders(self._data)
        self._mode = self._data.stat().st_mode & _FILE_MODE
        """A user who can enter the folder of objects can read them."""

    @abstractmethod
    def _names(self, path: str) -> Sequence[str]:
        """Return the names of an object's folders and file. Raises BadRequestError."""

    @abstractmethod
    def _object_path(self, path: str) -> str:
        """Return the path under which a list shows the object at this path."""

    @abstractmethod
    def _walk(self, prefix: str, start_after: str, recursive: bool) -> Iterator[Object]:
        """Yield the objects of a list. Raises BadRequestError."""

    async def sweep(self) -> int:
        """Remove the temporary files of dead writers; return their number. Called when a process starts."""
        return await asyncio.to_thread(sweep, self._tmp)

    async def stat(self, path: str) -> Object:
        """Describe an object. Raises NotExistError."""
        return await asyncio.to_thread(self._stat, path)

    async def read(self, path: str) -> _FileReader:
        """Open an object. Raises NotExistError."""
        return _FileReader(await _acquire(lambda: self._open(path), lambda file: file.close()))

    async def write(self, path: str, source: ByteSource, *, size: int = -1, persist: bool = False) -> None:
        """Store an object; see the port."""
        target = self._file(path)
        with _disk_errors(path):
            temporary = await _acquire(self._new_file, lambda made: made.discard())
        try:
            async for chunk in source_chunks(source, size):
                with _disk_errors(path):
                    await asyncio.to_thread(temporary.file.write, chunk)
            with _disk_errors(path):
                await asyncio.to_thread(self._finish, temporary, target, persist=persist)
        finally:
            temporary.discard()

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        """Store several objects durably, with one sync a folder; a local file becomes the object where it can."""
        await asyncio.to_thread(self._write_all, contents)

    async def create(self, path: str, content: Path) -> bool:
        """Store a local file as a new object; return False if there is one."""
        return await asyncio.to_thread(self._create, content, self._file(path), path)

    async def delete(self, path: str) -> None:
        """Delete an object and the folders that it leaves empty. Raises NotExistError."""
        await asyncio.to_thread(self._delete, path)

    async def list(self, prefix: str = "", *, start_after: str = "", recursive: bool = True) -> AsyncIterator[Object]:
        """Yield the objects whose path begins with `prefix`; see the port."""
        walk = self._walk(prefix.lstrip("/"), start_after.lstrip("/"), recursive)
        while page := await asyncio.to_thread(lambda: [*islice(walk, _PAGE)]):
            for found in page:
                yield found

    def _file(self, path: str) -> Path:
        return self._data.joinpath(*self._names(path))

    def _new_file(self) -> TemporaryFile:
        return TemporaryFile.create(self._tmp, _FILE_MODE)

    def _stat(self, path: str) -> Object:
        try:
            found = self._file(path).stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise not_exist(path) from error
        if not S_ISREG(found.st_mode):
            raise not_exist(path)
        return described(self._object_path(path), found)

    def _open(self, path: str) -> BinaryIO:
        try:
            return self._file(path).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise not_exist(path) from error

    def _write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        targets = {path: self._file(path) for path in contents}
        for path, content in contents.items():
            if isinstance(content, Path):
                with _disk_errors(path):
                    self._adopt(content)
        for path, content in contents.items():
            with _disk_errors(path):
                self._store(content, targets[path])
        folders = {target.parent for target in targets.values()}
        with _disk_errors(next(iter(contents), "")):
            self._folders.sync(folders.union(self._folders.unsynced(folders)))

    def _adopt(self, content: Path) -> None:
        """Give a local file the mode of an object, and make it durable."""
        descriptor = os.open(content, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with contextlib.suppress(PermissionError):  # of another user: it keeps its mode, or is copied
                os.fchmod(descriptor, self._mode)
            if os.fstat(descriptor).st_size:  # an empty file is durable with its name
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _store(self, content: bytes | Path, target: Path) -> None:
        """Store an object in the cheapest way, by a name alone where that is enough; its name is not yet durable."""
        try:
            if isinstance(content, Path):
                return self._place(lambda: os.link(content, target), content, target)
            if not content:
                return self._place(lambda: os.close(os.open(target, _NEW, self._mode)), None, target)
        except OSError as error:
            if error.errno not in _NOT_LINKABLE:
                raise
        temporary = self._new_file()
        try:
            if isinstance(content, bytes):
                temporary.file.write(content)
            else:
                with content.open("rb") as source:
                    shutil.copyfileobj(source, temporary.file, CHUNK_BYTES)
            sync_file(temporary.file)
            self._move(temporary, target)
        finally:
            temporary.discard()

    def _create(self, content: Path, target: Path, path: str) -> bool:
        with _disk_errors(path):
            self._adopt(content)
            try:
                self._place(lambda: os.link(content, target), content, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NOT_LINKABLE:
                    raise
                return self._create_copy(content, target)
            self._folders.sync({target.parent, *self._folders.unsynced({target.parent})})
        return True

    def _create_copy(self, content: Path, target: Path) -> bool:
        """Store a copy of a file of another file system as a new object."""
        temporary = self._new_file()
        try:
            with content.open("rb") as source:
                shutil.copyfileobj(source, temporary.file, CHUNK_BYTES)
            sync_file(temporary.file)
            self._place(lambda: os.link(temporary.path, target), temporary.path, target)
        except FileExistsError:
            return False
        finally:
            temporary.discard()
        self._folders.sync({target.parent, *self._folders.unsynced({target.parent})})
        return True

    def _finish(self, temporary: TemporaryFile, target: Path, *, persist: bool) -> None:
        if persist:
            sync_file(temporary.file)
        else:
            temporary.file.flush()
        self._move(temporary, target)
        folders = {target.parent}
        unsynced = self._folders.unsynced(folders)
        self._folders.sync(folders.union(unsynced) if persist else unsynced)

    def _move(self, temporary: TemporaryFile, target: Path) -> None:
        self._place(lambda: temporary.path.rename(target), temporary.path, target)

    def _place(self, place: Callable[[], object], source: Path | None, target: Path) -> None:
        """Give an object its name, and make missing folders. `source` is the file that gets the name."""
        for _ in range(_PLACE_ATTEMPTS):
            try:
                place()
            except FileNotFoundError:
                if source is not None and not source.exists():
                    raise
                with contextlib.suppress(FileNotFoundError):  # a concurrent deletion removed a parent
                    self._folders.make(target.parent)
            else:
                return
        raise InternalError(
            f"{target} cannot be stored: concurrent deletions removed its folder {_PLACE_ATTEMPTS} times",
            code="objectNotStored",
            hint="try again",
        )

    def _delete(self, path: str) -> None:
        file = self._file(path)
        try:
            file.unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            if isinstance(error, PermissionError) and not file.is_dir():
                raise
            raise not_exist(path) from error
        for folder in file.parents:
            if folder == self._data:
                return
            try:
                folder.rmdir()
            except OSError:  # not empty, or removed by another process
                return


class PosixObjects(FileObjects):
    """An object storage whose files have the objects' own paths.

    An object cannot have the path of another object's folder, and empty path elements collapse. A list is in the order
    of a walk that sorts the names of each folder: `file04/a` comes before `file041`.
    """

    def _names(self, path: str) -> Sequence[str]:
        return elements(path)

    def _object_path(self, path: str) -> str:
        return "/".join(elements(path))

    def _walk(self, prefix: str, start_after: str, recursive: bool) -> Iterator[Object]:
        if start_after and not start_after.startswith(prefix):
            raise BadRequestError(
                f"start_after {start_after[:200]!r} does not begin with the prefix {prefix[:200]!r}",
                code="invalidStartAfter",
            )
        after = tuple(start_after.split("/")) if start_after else ()
        return _walk(self._data, "", prefix, after, recursive)


class Folders:
    """The folders of one storage: made on demand, synced when an object has to be durable. Safe for threads.

    A folder is as durable as its entry in its parent. So a durable write also syncs the parents of all new folders
    above the object: those that it made, and those that another writer of this process made and has not synced yet.
    """

    def __init__(self, root: Path) -> None:
        """`root` must exist."""
        self._root = root
        self._made: dict[Path, object] = {}
        """Folders whose entry may not be durable yet, each with a token of its making."""

    def make(self, folder: Path) -> None:
        """Make a folder and its missing parents; keep an existing one. Raises OSError."""
        self._made[folder] = object()  # first, so that a thread that sees the folder also sees that it is not synced
        try:
            folder.mkdir(mode=FOLDER_MODE)
        except FileExistsError:  # made by another writer
            pass
        except FileNotFoundError:
            self.make(folder.parent)
            with contextlib.suppress(FileExistsError):  # made by another writer
                folder.mkdir(mode=FOLDER_MODE)
        except OSError:
            self._made.pop(folder, None)
            raise

    def unsynced(self, folders: Iterable[Path]) -> list[Path]:
        """Return the ancestors to sync so that these folders are durable."""
        found: dict[Path, None] = {}
        seen: set[Path] = {self._root}
        for folder in folders if self._made else ():
            while folder not in seen:
                seen.add(folder)
                parent = folder.parent
                if folder in self._made:
                    found[parent] = None
                folder = parent
        return list(found)

    def sync(self, folders: Iterable[Path]) -> None:
        """Bring the entries of these folders to the disk. Raises OSError."""
        made = self._made.copy()
        synced = set(folders)
        for folder in synced:
            with contextlib.suppress(FileNotFoundError):  # removed by a concurrent deletion
                sync_folder(folder)
        for path, token in made.items():
            if path.parent in synced and self._made.get(path) is token:
                del self._made[path]


class _FileReader:
    """An open file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    async def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from this offset, or those up to the end."""
        return await asyncio.to_thread(os.pread, self._file.fileno(), size, offset)

    async def close(self) -> None:
        """Close the file."""
        self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._file.close()


def described(path: str, found: os.stat_result) -> Object:
    """Describe the object in a file."""
    return Object(path, found.st_size, datetime.fromtimestamp(found.st_mtime_ns / 1e9, UTC))


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, unordered; none if the folder is gone."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _walk(folder: Path, path: str, prefix: str, after: tuple[str, ...], recursive: bool) -> Iterator[Object]:
    """Yield the objects below `folder`, whose own path is `path` (empty, or with a `/` at its end)."""
    for entry in sorted(entries(folder), key=lambda entry: entry.name):
        name = path + entry.name
        names = tuple(name.split("/"))
        if entry.is_dir(follow_symlinks=False):
            below = name + "/"
            inside = below.startswith(prefix)
            ahead = names < after[: len(names)]
            if not ahead and (prefix.startswith(below) or (inside and recursive)):
                yield from _walk(folder / entry.name, below, prefix, after, recursive)
        elif name.startswith(prefix) and (not after or names > after):
            with contextlib.suppress(FileNotFoundError):  # deleted since the folder was read
                yield described(name, entry.stat(follow_symlinks=False))


async def _acquire(make: Callable[[], T], release: Callable[[T], None]) -> T:
    """Return what a thread makes; release it if the caller is cancelled meanwhile, because the thread is not."""
    making = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(lambda done: None if done.exception() else release(done.result()))
        raise


@contextlib.contextmanager
def _disk_errors(path: str) -> Iterator[None]:
    """Turn an error of the disk into one that names the object and the way out."""
    try:
        yield
    except OSError as error:
        raise InternalError(
            f"object {path[:200]!r} cannot be stored: {error.strerror}",
            code="objectNotStored",
            details={"path": path},
            hint=too_many_open_files()
            if out_of_files(error)
            else "is the disk of the object storage full, or its folder not writable?",
        ) from error
