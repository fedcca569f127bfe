"""Bubblewrap around a step: its home is writable, /tmp its own, the rest of the machine read-only; the network is kept.

The executor's data folder (other tasks, tokens, objects) is not visible inside.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from runstream.errors import InternalError
from runstream.executor.task_folder import TaskFolder

_PROBE_SECONDS = 10.0
_FLAGS = (
    "--die-with-parent",
    "--unshare-pid",
    "--unshare-ipc",
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How the commands of tasks are wrapped."""

    program: str
    """Path of bwrap; empty for no sandbox."""
    hidden: tuple[Path, ...]
    """Folders and files that are not to be seen inside."""
    missing: str = ""
    """Why there is no sandbox although one is required; else empty."""

    def require(self) -> None:
        """Raises InternalError when a sandbox is required and there is none."""
        if self.missing:
            raise InternalError(
                f"the task cannot run: {self.missing}",
                code="sandboxUnavailable",
                hint="install bubblewrap, or start the executor with --sandbox auto",
            )

    def wrap(
        self, arguments: Sequence[str], folder: Path, task: TaskFolder, visible: Sequence[Path] = ()
    ) -> Sequence[str]:
        """The arguments that run these inside; `visible` are folders to be seen, read-only, even if hidden."""
        if not self.program:
            return arguments
        flags: list[str] = [*_FLAGS, "--bind", str(task.tmp), "/tmp"]  # noqa: S108
        for path in self.hidden:
            if path.is_dir():
                flags += ["--tmpfs", str(path)]
            elif path.exists():
                flags += ["--ro-bind", "/dev/null", str(path)]
        for path in visible:
            flags += ["--ro-bind", str(path), str(path)]
        for path in (task.home, task.tmp):
            flags += ["--bind", str(path), str(path)]
        return [self.program, *flags, "--chdir", str(folder), "--", *arguments]


def find_sandbox(mode: Literal["auto", "require", "off"], hidden: tuple[Path, ...]) -> Sandbox:
    """The sandbox of this machine. Runs bwrap once to see whether it works here; blocks for as long."""
    if mode == "off":
        return Sandbox("", hidden)
    program = shutil.which("bwrap")
    reason = "bubblewrap is not installed" if program is None else _refusal(program)
    if program is not None and not reason:
        return Sandbox(program, _outermost(hidden))
    if mode == "require":
        return Sandbox("", hidden, missing=f"a sandbox is required, but {reason}")
    log.info(f"tasks on this machine run without a sandbox: {reason}", action="sandbox_absent", reason=reason)
    return Sandbox("", hidden)


def _outermost(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Those that are not in another one, nor in /tmp, of which a task sees its own."""
    inside = {path for path in paths if any(other in path.parents for other in (Path("/tmp"), *paths))}  # noqa: S108
    return tuple(dict.fromkeys(path for path in paths if path not in inside))


def _refusal(program: str) -> str:
    try:
        done = subprocess.run(
            [program, *_FLAGS, "true"], capture_output=True, timeout=_PROBE_SECONDS, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not work here: {error}"
    return "" if done.returncode == 0 else f"bubblewrap does not work here: {done.stderr.strip()[:200]}"
