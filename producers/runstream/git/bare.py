"""Bare repositories in a folder: each appears whole or not at all, and one command at a time changes it.

The lock is on the repository's own folder, so it ends with the process that holds it. A removal renames the folder
before it deletes it: one that waited for the lock finds no folder, or another one, at the path.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runstream.errors import InternalError, NotExistError
from runstream.git.command import Git

_ASK_SECONDS = 0.05
"""Interval between attempts to get a lock, which the kernel does not signal without a thread."""
_LEFT_BEHIND = timedelta(hours=1)
"""Age from which a folder that is being made, or removed, has lost its process."""
_USED = "runstream-used"
"""A file whose time is that of the last use."""


class BareRepositories:
    """The bare repositories below `root`; a name is a relative path without `.git`, checked by its maker."""

    def __init__(self, root: Path, git: Git) -> None:
        self.root = root.absolute()
        self._git = git

    def path(self, name: str) -> Path:
        """Return where a repository is, or would be."""
        return self.root / f"{name}.git"

    def names(self, below: str = "") -> list[str]:
        """Return the names of all repositories, or of those below a folder."""
        folder = self.root / below
        found = (path for pattern in ("*.git", "*/*.git") for path in folder.glob(pattern) if path.is_dir())
        return sorted(str(path.relative_to(self.root)).removesuffix(".git") for path in found)

    async def create(self, name: str) -> None:
        """Create an empty repository, unless it exists."""
        path = self.path(name)
        if path.is_dir():
            return
        new = self.root / f".new-{secrets.token_hex(8)}"
        try:
            await self._git.ask(
                "init", "-q", "--bare", "--template=", "--initial-branch=main", str(new), what=f"create {path.name}"
            )
            mark_used(new)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(OSError):  # another process has created it: a folder is not replaced by a full one
                new.rename(path)
        finally:
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
        if not path.is_dir():
            raise InternalError(f"the repository {path} cannot be created", code="repositoryNotCreated")

    @asynccontextmanager
    async def exclusive(self, name: str, seconds: float) -> AsyncIterator[Path]:
        """Hold the lock of a repository; yield its path.

        Raises NotExistError if there is no such repository, InternalError (repositoryBusy) if the lock is not free
        within `seconds`.
        """
        path = self.path(name)
        try:
            async with asyncio.timeout(seconds):
                descriptor = await self._lock(path)
        except TimeoutError as error:
            raise InternalError(
                f"another command changes the repository {name}",
                code="repositoryBusy",
                hint="try again when it has ended",
            ) from error
        try:
            yield path
        finally:
            os.close(descriptor)

    async def _lock(self, path: Path) -> int:
        while True:
            if (descriptor := _locked(path)) is not None:
                return descriptor
            await asyncio.sleep(_ASK_SECONDS)

    async def remove(self, path: Path) -> None:
        """Remove a repository, whose lock the caller holds."""
        await asyncio.to_thread(self._remove, path)

    def _remove(self, path: Path) -> None:
        gone = self.root / f".gone-{secrets.token_hex(8)}"
        path.rename(gone)
        if path.parent != self.root:
            with contextlib.suppress(OSError):  # other repositories are in the folder
                path.parent.rmdir()
        shutil.rmtree(gone, ignore_errors=True)

    async def sweep(self, now: datetime) -> None:
        """Remove what processes that died have left of making and removing repositories."""
        for path in [*self.root.glob(".new-*"), *self.root.glob(".gone-*")]:
            with contextlib.suppress(FileNotFoundError):  # its process is alive, and has finished
                if now - _time(path.stat().st_mtime) > _LEFT_BEHIND:
                    await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def mark_used(path: Path) -> None:
    """Note that a repository is used now."""
    (path / _USED).touch()


def last_used(path: Path) -> datetime:
    """Return when a repository was used last."""
    try:
        return _time((path / _USED).stat().st_mtime)
    except FileNotFoundError:
        return _time(path.stat().st_mtime)


async def folder_bytes(path: Path) -> int:
    """Return the size of all files of a folder."""
    return await asyncio.to_thread(_folder_bytes, path)


async def drop_unfinished(path: Path) -> None:
    """Remove what a killed git has left in a repository, whose lock the caller holds."""
    await asyncio.to_thread(_drop_unfinished, path)


def missing(path: Path) -> NotExistError:
    """Return the error for a repository that is not there."""
    return NotExistError(f"there is no repository {path.stem}", code="repositoryDoesNotExist", hint="push to it first")


def _locked(path: Path) -> int | None:
    """Return a descriptor that holds the lock; None while another one does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:
        raise missing(path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass  # another holds it, or has removed the repository: look again
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _drop_unfinished(path: Path) -> None:
    for quarantine in [*path.glob("objects/tmp_objdir-*"), *path.glob("objects/incoming-*")]:
        shutil.rmtree(quarantine, ignore_errors=True)
    for file in [*path.glob("objects/pack/tmp_*"), *path.glob("**/*.lock")]:
        file.unlink(missing_ok=True)


def _folder_bytes(path: Path) -> int:
    size = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # git has removed it meanwhile
                size += (Path(folder) / name).lstat().st_size
    return size


def _time(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
