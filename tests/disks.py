"""Filling a disk to its last byte."""

from __future__ import annotations

import contextlib
from pathlib import Path


def take_all(ballast: Path) -> None:
    """Write a file that takes all room that is left; removing it gives it back."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
