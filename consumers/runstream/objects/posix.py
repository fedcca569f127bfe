"""Objects as files below `<root>/data`, by their own paths; written in `<root>/tmp` and renamed.

An object with the path of another's folder cannot be stored, and empty path elements collapse. Order is that
of a walk with the names of each folder sorted: `file04/a` comes before `file041`. All file work is done in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import BinaryIO, Self

from runstream.errors import BadRequestError, InternalError
from runstream.objects.port import CHUNK_BYTES, ByteSource, Object, not_exist

_PAGE = 1000
_FILE_MODE = 0o660
_FOLDER_MODE = 0o770
_MOVE_ATTEMPTS = 20
"""A folder may be removed, when its last object is deleted, between its making and the rename into it."""


class PosixObjects:
    """The object storage in a folder of the local disk."""

    def __init__(self, root: Path) -> None:
        self._data = root / "data"
        self._tmp = root / "tmp"
        for folder in (self._data, self._tmp):
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)

    async def stat(self, path: str) -> Object:
        """What is known of an object. Raises NotExistError."""
        return await asyncio.to_thread(self._stat, path)

    async def read(self, path: str) -> _FileReader:
        """Open an object. Raises NotExistError."""
        return await asyncio.to_thread(self._open, path)

    async def write(self, path: str, source: ByteSource, *, size: int = -1, persist: bool = False) -> None:
        """Store an object; see the port."""
        target = self._file(path)
        temporary = self._temporary()
        with _as_internal(path):
            file = await asyncio.to_thread(_create, temporary)
        try:
            with file:
                await _copy(source, file, size, path)
                with _as_internal(path):
                    await asyncio.to_thread(_sync_file if persist else _flush, file)
            with _as_internal(path):
                await asyncio.to_thread(self._move, temporary, target, {}, persist=persist)
        finally:
            temporary.unlink(missing_ok=True)

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        """Store several objects durably, each folder being synced once."""
        await asyncio.to_thread(self._write_all, contents)

    async def delete(self, path: str) -> None:
        """Delete an object and the folders that it leaves empty. Raises NotExistError."""
        await asyncio.to_thread(self._delete, path)

    async def list(self, prefix: str = "", *, start_after: str = "", recursive: bool = True) -> AsyncIterator[Object]:
        """The objects whose path begins with `prefix`. Raises BadRequestError for a `start_after` outside of it."""
        prefix, start_after = prefix.lstrip("/"), start_after.lstrip("/")
        if start_after and not start_after.startswith(prefix):
            raise BadRequestError(
                f"start_after {start_after[:200]!r} does not begin with the prefix {prefix[:200]!r}",
                code="invalidStartAfter",
            )
        walk = _walk(self._data, "", prefix, tuple(start_after.split("/")) if start_after else (), recursive)
        while page := await asyncio.to_thread(lambda: [*islice(walk, _PAGE)]):
            for found in page:
                yield found

    def _file(self, path: str) -> Path:
        elements = [element for element in path.split("/") if element]
        too_long = any(len(element.encode("utf-8", "surrogateescape")) > 255 for element in elements)
        if not elements or ".." in elements or "." in elements or "\0" in path or too_long:
            raise BadRequestError(
                f"{path[:200]!r} cannot be the path of an object",
                code="invalidObjectPath",
                hint="a path has no '.' or '..', and no element of more than 255 bytes",
            )
        return self._data.joinpath(*elements)

    def _temporary(self) -> Path:
        return self._tmp / secrets.token_hex(16)

    def _stat(self, path: str) -> Object:
        try:
            found = self._file(path).stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise not_exist(path) from error
        if not S_ISREG(found.st_mode):
            raise not_exist(path)
        return _described(path.strip("/"), found)

    def _open(self, path: str) -> _FileReader:
        try:
            file = self._file(path).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise not_exist(path) from error
        return _FileReader(file)

    def _write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        unsynced: dict[Path, None] = {}
        for path, content in contents.items():
            target = self._file(path)
            temporary = self._temporary()
            with _as_internal(path):
                try:
                    with _create(temporary) as file:
                        _fill(file, content)
                        if file.tell():  # an empty one has nothing but its name
                            _sync_file(file)
                    self._move(temporary, target, unsynced, persist=False)
                finally:
                    temporary.unlink(missing_ok=True)
        for folder in unsynced:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                _sync_folder(folder)

    def _move(self, temporary: Path, target: Path, unsynced: dict[Path, None], *, persist: bool) -> None:
        """Rename into place, making folders; `unsynced` gathers the folders whose entries changed."""
        for _ in range(_MOVE_ATTEMPTS):
            self._make_folder(target.parent, unsynced)
            try:
                temporary.rename(target)
                break
            except FileNotFoundError:
                if not temporary.exists():
                    raise
        else:
            raise InternalError(f"the folder of {target.name} is removed again and again", code="objectNotStored")
        unsynced[target.parent] = None
        if persist:
            for folder in unsynced:
                _sync_folder(folder)

    def _make_folder(self, folder: Path, unsynced: dict[Path, None]) -> None:
        try:
            folder.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:
            return
        except FileNotFoundError:
            self._make_folder(folder.parent, unsynced)
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=_FOLDER_MODE)
        unsynced[folder.parent] = None

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


def _walk(folder: Path, path: str, prefix: str, after: tuple[str, ...], recursive: bool) -> Iterator[Object]:
    """The objects below `folder`, whose own path is `path` (empty or with a `/` at its end)."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile
        return
    for entry in found:
        name = path + entry.name
        elements = tuple(name.split("/"))
        if entry.is_dir(follow_symlinks=False):
            below = name + "/"
            inside = below.startswith(prefix)
            ahead = elements < after[: len(elements)]
            if not ahead and (prefix.startswith(below) or (inside and recursive)):
                yield from _walk(folder / entry.name, below, prefix, after, recursive)
        elif name.startswith(prefix) and (not after or elements > after):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                yield _described(name, entry.stat(follow_symlinks=False))


def _described(path: str, found: os.stat_result) -> Object:
    return Object(path, found.st_size, datetime.fromtimestamp(found.st_mtime_ns / 1e9, UTC))


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


def _create(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, _FILE_MODE), "wb")


def _flush(file: BinaryIO) -> None:
    file.flush()


def _sync_file(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
