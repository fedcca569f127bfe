"""The folder of one executor task on the executor's machine; everything that the task leaves locally is in it.

setup.log  N.log   what its steps wrote
N.tar              what its save steps packed
home/              its HOME; home/project is the default working directory
tmp/               its temporary files, and the scripts of its steps
processes          the sessions that it started, so that a restart finds them
"""

from __future__ import annotations

import shutil
from pathlib import Path


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
        """Remove it with all that is in it, also what the task made unreadable."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.exists():
            for folder in (path for path in [self.root, *self.root.rglob("*")] if path.is_dir()):
                if not folder.is_symlink():
                    folder.chmod(0o700)
            shutil.rmtree(self.root, ignore_errors=True)
