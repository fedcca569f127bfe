"""What a jsonnet program imports, gathered before it runs: files of its own folder, and of no other.

The language has it that what is imported is written as a plain text, so the sources themselves say which files are
wanted. A file that is outside of the folder (by `..`, an absolute path, or a link), not there, or not text, is left
out: the program is told so where it imports it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from runstream.errors import BadRequestError

MAX_FILES = 100
MAX_BYTES = 1 << 20
"""Of all files together."""
_IMPORT = re.compile(r"\bimport(?:str|bin)?\s*@?(?:\"([^\"\n]{1,500})\"|'([^'\n]{1,500})')")


def gather_imports(path: Path, source: str) -> dict[str, str]:
    """The texts that the program in this file may import, by their paths below its folder.

    Raises BadRequestError when they are more than 100 files or 1 MiB.
    """
    folder = path.parent.resolve()
    found: dict[str, str] = {}
    waiting = [(folder, source)]
    while waiting:
        for file in _wanted(*waiting.pop(), folder):
            name = file.relative_to(folder).as_posix()
            text = None if name in found else _text(file)
            if text is None:
                continue
            found[name] = text
            _require_few(found, path)
            waiting.append((file.parent, text))
    return found


def _wanted(where: Path, source: str, folder: Path) -> list[Path]:
    named = (double or single for double, single in _IMPORT.findall(source))
    files = (Path(os.path.normpath(where / name)) for name in named)
    return [file for file in files if file.is_relative_to(folder) and file.resolve().is_relative_to(folder)]


def _text(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError):  # the evaluation says what it misses, and where it is imported
        return None


def _require_few(found: dict[str, str], path: Path) -> None:
    if len(found) > MAX_FILES or sum(map(len, found.values())) > MAX_BYTES:
        raise BadRequestError(
            f"{path} imports more than {MAX_FILES} files, or {MAX_BYTES} bytes",
            code="configTooLarge",
            hint="import less",
        )
