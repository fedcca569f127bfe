"""The backends that the suite runs against: each gives an empty storage in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runstream.objects import ObjectStorage, PosixObjects

BACKENDS: dict[str, Callable[[Path], ObjectStorage]] = {"posix": PosixObjects}
