"""Files of variables and secrets, as options name them."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from runstream.errors import BadRequestError

MAX_BYTES = 1 << 20


def read_files(paths: Iterable[Path] | None) -> list[tuple[str, str]]:
    """Name and text of each file. Raises BadRequestError for one that cannot be read."""
    return [(str(path), _read(path)) for path in paths or ()]


def warn_of_readers(paths: Iterable[Path] | None) -> None:
    """Say of each file of secrets that others may read that they may."""
    for path in paths or ():
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH):
            sys.stderr.write(f"warning: others may read the secrets in {path}; `chmod 600 {path}` keeps them out\n")


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadRequestError(f"{path} is larger than {MAX_BYTES} bytes", code="variablesUnreadable")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadRequestError(f"{path} cannot be read: {why or error}", code="variablesUnreadable") from error
