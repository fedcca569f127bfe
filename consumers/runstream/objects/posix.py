"""Objects as files below `<root>/data`, written in `<root>/tmp` and renamed; all file work is done in threads.

What name an object's file has, and in which order files are listed, is the backend's.
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
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from runstream.atomic_files import FILE_MODE, Temporary, sweep
from runstream.errors import BadRequestError, InternalError
from runstream.objects.port import CHUNK_BYTES, ByteSource, Object, elements, not_exist

_PAGE = 1000
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_PLACE_ATTEMPTS = 20
"""A folder may be removed, when its last object is deleted, between its making and the naming of an object in it."""
_TO_BE_WRITTEN = frozenset({errno.EEXIST, errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
"""Why a name alone does not do: there is such an object, another file system, one without links."""
T = TypeVar("T")


class FileObjects(ABC):
    """An object storage in a folder of the local disk."""

    def __init__(self, root: Path) -> None:
        self._data = root / "data"
        self._tmp = root / "tmp"
        for folder in (self._data, self._tmp):
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._folders = Folders(self._data)
        self._mode = self._data.stat().st_mode & FILE_MODE
        """Who may come to the objects may read them."""

    @abstractmethod
    def _names(self, path: str) -> Sequence[str]:
        """The names of the folders, and of the file, of an object. Raises BadRequestError."""

    @abstractmethod
    def _object_path(self, path: str) -> str:
        """How a list calls the object that somebody asked for by this path."""

    @abstractmethod
    def _walk(self, prefix: str, start_after: str, recursive: bool) -> Iterator[Object]:
        """What a list gives. Raises BadRequestError."""

    async def sweep(self) -> int:
        """Remove what writers that died have left in `tmp`; gives how many files. Done at a process's start."""
        return await asyncio.to_thread(sweep, self._tmp)

    async def stat(self, path: str) -> Object:
        """What is known of an object. Raises NotExistError."""
        return await asyncio.to_thread(self._stat, path)

    async def read(self, path: str) -> _FileReader:
        """Open an object. Raises NotExistError."""
        return _FileReader(await _made(lambda: self._open(path), lambda file: file.close()))

    async def write(self, path: str, source: ByteSource, *, size: int = -1, persist: bool = False) -> None:
        """Store an object; see the port."""
        target = self._file(path)
        with _as_internal(path):
            temporary = await _made(lambda: Temporary.create(self._tmp), lambda made: made.discard())
        try:
            await _copy(source, temporary.file, size, path)
            with _as_internal(path):
                await asyncio.to_thread(self._finish, temporary, target, persist=persist)
        finally:
            temporary.discard()

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        """Store several objects durably, each folder being synced once; a local file becomes the object, if it can."""
        await asyncio.to_thread(self._write_all, contents)

    async def delete(self, path: str) -> None:
        """Delete an object and the folders that it leaves empty. Raises NotExistError."""
        await asyncio.to_thread(self._delete, path)

    async def list(self, prefix: str = "", *, start_after: str = "", recursive: bool = True) -> AsyncIterator[Object]:
        """The objects whose path begins with `prefix`; see the port."""
        walk = self._walk(prefix.lstrip("/"), start_after.lstrip("/"), recursive)
        while page := await asyncio.to_thread(lambda: [*islice(walk, _PAGE)]):
            for found in page:
                yield found

    def _file(self, path: str) -> Path:
        return self._data.joinpath(*self._names(path))

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
                with _as_internal(path):
                    self._settle(content)
        for path, content in contents.items():
            with _as_internal(path):
                self._store(content, targets[path])
        folders = {target.parent for target in targets.values()}
        with _as_internal(next(iter(contents), "")):
            self._folders.sync(folders.union(self._folders.unsynced(folders)))

    def _settle(self, content: Path) -> None:
        """Make a local file durable, and as accessible as an object has to be."""
        descriptor = os.open(content, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with contextlib.suppress(PermissionError):  # of somebody else: then it stays as it is, or is copied
                os.fchmod(descriptor, self._mode)
            if os.fstat(descriptor).st_size:  # an empty one has nothing but its name
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _store(self, content: bytes | Path, target: Path) -> None:
        """Store an object durably but for its name, in the cheapest way: by a name alone where that will do."""
        try:
            if isinstance(content, Path):
                return self._place(lambda: os.link(content, target), content, target)
            if not content:
                return self._place(lambda: os.close(os.open(target, _NEW, self._mode)), None, target)
        except OSError as error:
            if error.errno not in _TO_BE_WRITTEN:
                raise
        temporary = Temporary.create(self._tmp)
        try:
            _fill(temporary.file, content)
            temporary.sync()
            self._move(temporary, target)
        finally:
            temporary.discard()

    def _finish(self, temporary: Temporary, target: Path, *, persist: bool) -> None:
        if persist:
            temporary.sync()
        else:
            temporary.file.flush()
        self._move(temporary, target)
        folders = {target.parent}
        unsynced = self._folders.unsynced(folders)
        self._folders.sync(folders.union(unsynced) if persist else unsynced)

    def _move(self, temporary: Temporary, target: Path) -> None:
        self._place(lambda: temporary.path.rename(target), temporary.path, target)

    def _place(self, place: Callable[[], object], source: Path | None, target: Path) -> None:
        """Give an object its name, making folders where they are missing. `source` is what gets the name."""
        for _ in range(_PLACE_ATTEMPTS):
            try:
                place()
            except FileNotFoundError:
                if source is not None and not source.exists():
                    raise
                with contextlib.suppress(FileNotFoundError):  # one above was removed meanwhile
                    self._folders.make(target.parent)
            else:
                return
        raise InternalError(f"the folder of {target.name} is removed again and again", code="objectNotStored")

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
            except OSError:  # not empty, or gone already
                return


class _FileReader:
    """An open file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    async def read(self, offset: int, size: int) -> bytes:
        """The bytes from this offset."""
        return await asyncio.to_thread(os.pread, self._file.fileno(), size, offset)

    async def close(self) -> None:
        """Close the file."""
        self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def described(path: str, found: os.stat_result) -> Object:
    """The object that a file is."""
    return Object(path, found.st_size, datetime.fromtimestamp(found.st_mtime_ns / 1e9, UTC))


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, in no order; nothing when it was deleted meanwhile."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


async def _made(make: Callable[[], T], release: Callable[[T], None]) -> T:
    """What a thread made; released when nobody waits for it any more."""
    making = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(lambda done: None if done.exception() else release(done.result()))
        raise


async def _copy(source: ByteSource, file: BinaryIO, size: int, path: str) -> None:
    left = size if size >= 0 else None
    while left is None or left > 0:
        chunk = await source.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
        if not chunk:
            return
        if left is not None:
            left -= len(chunk)
        with _as_internal(path):
            await asyncio.to_thread(file.write, chunk)


def _fill(file: BinaryIO, content: bytes | Path) -> None:
    if isinstance(content, bytes):
        file.write(content)
        return
    with content.open("rb") as source:
        shutil.copyfileobj(source, file, CHUNK_BYTES)


@contextlib.contextmanager
def _as_internal(path: str) -> Iterator[None]:
    """Turns what the disk refuses into an error that says which object and what to do."""
    try:
        yield
    except OSError as error:
        raise InternalError(
            f"object {path[:200]!r} cannot be stored: {error.strerror}",
            code="objectNotStored",
            details={"path": path},
            hint="is the disk of the object storage full, or its folder not writable?",
        ) from error


FOLDER_MODE = 0o770


class Folders:
    """The folders of one storage. Called by many threads at once."""

    def __init__(self, root: Path) -> None:
        """`root` is there already."""
        self._root = root
        self._made: dict[Path, object] = {}
        """Folders whose entry may not be on the disk yet; each making has a token of its own."""

    def make(self, folder: Path) -> None:
        """Make a folder, and those above that are missing; one that is there stays as it is. Raises OSError."""
        self._made[folder] = object()  # before it is made, so that nobody sees it without seeing this
        try:
            folder.mkdir(mode=FOLDER_MODE)
        except FileExistsError:  # another writer made it meanwhile
            pass
        except FileNotFoundError:
            self.make(folder.parent)
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=FOLDER_MODE)
        except OSError:
            self._made.pop(folder, None)
            raise

    def unsynced(self, folders: Iterable[Path]) -> list[Path]:
        """Those above these folders that have to be synced so that these are durable."""
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
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                _sync(folder)
        for path, token in made.items():
            if path.parent in synced and self._made.get(path) is token:
                del self._made[path]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class PosixObjects(FileObjects):
    """The object storage in a folder of the local disk."""

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


def _walk(folder: Path, path: str, prefix: str, after: tuple[str, ...], recursive: bool) -> Iterator[Object]:
    """The objects below `folder`, whose own path is `path` (empty or with a `/` at its end)."""
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
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                yield described(name, entry.stat(follow_symlinks=False))
