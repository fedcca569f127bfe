"""The folder of one executor task on the executor's machine; everything that the task leaves locally is in it.

logs/setup.log  logs/steps/N.log    what its steps wrote
archives/N.tar                      what its save steps packed
home/                               its HOME; home/project is the default working directory
tmp/                                its temporary files, and the scripts of its steps
processes                           the sessions that it started, so that a restart finds them
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TaskFolder:
    """Where the things of one task are."""

    root: Path

    @property
    def home(self) -> Path:
        """The task's HOME."""
        return self.root / "home"

    @property
    def tmp(self) -> Path:
        """The task's TMPDIR; /tmp in a sandbox."""
        return self.root / "tmp"

    @property
    def processes(self) -> Path:
        """The record of started sessions."""
        return self.root / "processes"

    def log(self, step: int | None) -> Path:
        """The local log of a step; None is the setup step."""
        return self.root / "logs" / ("setup.log" if step is None else f"{step}.log")

    def archive(self, step: int) -> Path:
        """The local archive of a workspace step."""
        return self.root / f"{step}.tar"

    def make(self) -> None:
        """Make it anew, empty."""
        if self.root.exists():
            self.remove()
        self.root.mkdir(mode=0o700, parents=True)
        for folder in (self.root / "logs", self.home, self.tmp):
            folder.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove it with all that is in it, also what the task made unreadable."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.exists():
            for folder in (path for path in [self.root, *self.root.rglob("*")] if path.is_dir()):
                if not folder.is_symlink():
                    folder.chmod(0o700)
            shutil.rmtree(self.root, ignore_errors=True)
