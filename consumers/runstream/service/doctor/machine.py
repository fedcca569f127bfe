"""What this machine has: Python, programs that tasks use, disk space."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from runstream.executor.drivers.process import missing_sandbox
from runstream.service.data_dir import NEEDED_BYTES
from runstream.service.doctor.finding import Finding, judged
from runstream.settings import Settings

LOW_BYTES = 2 << 30


async def machine(settings: Settings) -> AsyncIterator[Finding]:
    """What was found on this machine."""
    yield judged(
        "Python",
        f"{platform.python_version()} ({sys.executable})",
        good=sys.version_info >= (3, 11),
        todo="use Python 3.11 or later",
    )
    yield _disk(settings.data_dir)
    if not settings.objects_path.is_relative_to(settings.data_dir):
        yield _disk(settings.objects_path)
    if "executor" in settings.components:
        yield _program("git", "steps that clone a repository fail", "install git", required=True)
        yield await _sandbox(settings)
        yield _user()


def _disk(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return judged(
        f"disk of {folder}",
        f"{free / (1 << 30):.1f} GB free",
        good=free >= LOW_BYTES,
        todo="free some space: when it is full, nothing can be appended any more",
        otherwise="problem" if free < NEEDED_BYTES else "warning",
    )


async def _sandbox(settings: Settings) -> Finding:
    """Make a sandbox, as an executor does when it starts."""
    if settings.executor.sandbox == "off":
        return Finding("sandbox", "warning", "it is off", "tasks can read and change all that this user can")
    reason = await missing_sandbox()
    return judged(
        "sandbox",
        reason or "works",
        good=not reason,
        todo="without one tasks can read and change all that this user can: allow user namespaces on this machine",
        otherwise="problem" if settings.executor.sandbox == "require" else "warning",
    )


def _user() -> Finding:
    return judged(
        "user",
        "root" if os.geteuid() == 0 else getpass.getuser(),
        good=os.geteuid() != 0,
        todo="run the service as a user of its own: what escapes from it then is not root",
        otherwise="warning",
    )


def _program(name: str, consequence: str, todo: str, *, required: bool) -> Finding:
    path = shutil.which(name)
    return judged(
        name,
        path or f"not on PATH: {consequence}",
        good=path is not None,
        todo=todo,
        otherwise="problem" if required else "warning",
    )
