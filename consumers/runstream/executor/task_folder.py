"""The folder of one executor task on the executor's machine; everything that the task leaves locally is in it.

setup.log  N.log   what its steps wrote
N.tar              what its save steps packed
home/              its HOME; home/project is the default working directory
tmp/               its temporary files, and the scripts of its steps
processes          the sessions that it started, so that a restart finds them
"""

from __future__ import annotations

import secrets
from pathlib import Path

import structlog

from runstream.executor.removal import remove_tree

log = structlog.get_logger()


class TaskFolder:
    """Where the things of one task are."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        """The task's HOME."""
        self.tmp = root / "tmp"
        """The task's TMPDIR; /tmp in a sandbox."""
        self.processes = root / "processes"
        """The record of started sessions."""
        self.aside = root.parent.with_name("set-aside")
        """Where it is put when it cannot be removed."""

    def log(self, step: int | None) -> Path:
        """The local log of a step; None is the setup step."""
        return self.root / ("setup.log" if step is None else f"{step}.log")

    def archive(self, step: int) -> Path:
        """The local archive of a workspace step."""
        return self.root / f"{step}.tar"

    def make(self) -> None:
        """Make it anew, empty."""
        try:
            self.root.mkdir(mode=0o700)
        except FileExistsError:
            self.remove()
            self.root.mkdir(mode=0o700)
        for folder in (self.home, self.tmp):
            folder.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove it with all that is in it; what cannot be removed is set aside, and named in a warning."""
        problems = remove_tree(self.root)
        if problems.count:
            place = self._set_aside()
            log.warning(
                f"files of a task cannot be removed, they are left in {place}: {problems}",
                action="task_folder_left",
                path=str(place),
                count=problems.count,
            )

    def _set_aside(self) -> Path:
        """Return where it is then: a new name may be needed for its own."""
        try:
            self.aside.mkdir(mode=0o700, exist_ok=True)
            place = self.aside / f"{self.root.name}.{secrets.token_hex(4)}"
            self.root.rename(place)
        except OSError:  # it cannot be moved either: the warning names where it is
            return self.root
        return place
