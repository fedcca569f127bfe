"""What an executor keeps on its machine: its id, a lock against a second one, how far it has read, its tasks' folders.

<data dir>/executor/id
<data dir>/executor/lock
<data dir>/executor/positions.json     {"epoch": 1, "after": {"0": 812}, "origins": {"0": "2026-01-31T08:00:00Z"}}
<data dir>/executor/spare               blocks for the last lines of logs on a full disk
<data dir>/executor/tasks/<executor task id>/
<data dir>/executor/set-aside/          folders of earlier tasks that could not be removed
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import structlog

from runstream.errors import InternalError
from runstream.executor.room import SpareRoom
from runstream.ids import new_id, require_token

log = structlog.get_logger()


class ExecutorPlace:
    """The folder of one executor. Its files are small: they are read and written in place."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "executor"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.spare = SpareRoom(self._root / "spare")

    @property
    def folder(self) -> Path:
        """Where the executor's own files are."""
        return self._root

    @property
    def tasks(self) -> Path:
        """Where the folders of tasks are."""
        return self._root / "tasks"

    def identity(self, wanted: str = "") -> str:
        """The executor's id: the wanted one, else the one that was made at the first start."""
        if wanted:
            return require_token(wanted, "executor id")
        file = self._root / "id"
        if not file.exists():
            _replace(file, new_id().encode())
        return require_token(file.read_text().strip(), "executor id")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only executor here. Raises InternalError when there is another."""
        with (self._root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InternalError(
                    f"another executor uses {self._root}",
                    code="executorRunning",
                    hint="give each executor of this machine a --data-dir of its own",
                ) from error
            yield

    def positions(self, epoch: int, origins: Mapping[int, str]) -> dict[int, int]:
        """Behind which sequence of each partition to read; from the beginning what is not there.

        A position of a partition that was made anew since (its origin is another one) is of no use: not all that was
        read up to there is in it, and what is there now was not read.
        """
        file = self._root / "positions.json"
        try:
            stored = orjson.loads(file.read_bytes())
            if stored["epoch"] == epoch:
                made = stored.get("origins", {})
                after = {int(partition): int(sequence) for partition, sequence in stored["after"].items()}
                return {at: sequence for at, sequence in after.items() if made.get(str(at)) == origins.get(at)}
        except FileNotFoundError:
            pass  # the first start
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning(f"{file} cannot be read: {error}", action="positions_unreadable", path=str(file))
        return {}

    def keep_positions(self, epoch: int, after: Mapping[int, int], origins: Mapping[int, str]) -> None:
        """Note how far was read of which partitions (see `Log.origin`). A note that is lost costs only time."""
        content = {
            "epoch": epoch,
            "after": {str(partition): sequence for partition, sequence in after.items()},
            "origins": {str(partition): origin for partition, origin in origins.items()},
        }
        file = self._root / "positions.json"
        try:
            _replace(file, orjson.dumps(content))
        except OSError as error:  # no room on the disk, or no file left to open
            log.warning(f"{file} cannot be written: {error}", action="positions_not_kept", path=str(file))


def _replace(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".new")
    with temporary.open("wb") as new:
        new.write(content)
        new.flush()
        os.fsync(new.fileno())
    temporary.replace(file)
