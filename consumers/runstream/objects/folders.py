"""The folders that objects are in: made when they are needed, and synced when an object has to last.

A folder is as durable as its entry in the one above. So whoever stores an object also syncs the entries of the folders
around it that are new: those that it made, and those that another writer of this process has just made.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

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
