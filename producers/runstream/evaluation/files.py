"""The files of a configuration: their names, in order (rules config-1 and config-2), their imports, and parsing them.

Parsing may evaluate a program, so it blocks for as long as the limits allow; beside an event loop use ConfigReader.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from runstream.errors import BadRequestError
from runstream.evaluation.program import LIMITS, NO_IMPORTS, EvaluationLimits, ProgramFormat, evaluate
from runstream.runconfig.parse import ParsedConfig, parse_config
from runstream.runconfig.reading import Format
from runstream.runconfig.refs import RefContext, config_context

FOLDERS = (".runstream", ".agola")
ConfigName = Literal["config.star", "config.jsonnet", "config.json", "config.yml"]
PROGRAMS: dict[str, ProgramFormat] = {"config.star": "starlark", "config.jsonnet": "jsonnet"}
TEXTS: dict[str, Format] = {"config.json": "json", "config.yml": "yaml"}
NAMES: tuple[ConfigName, ...] = ("config.star", "config.jsonnet", "config.json", "config.yml")
"""File names in the order of the search; the first file found is taken."""
SUFFIXES: dict[str, ConfigName] = {
    ".star": "config.star",
    ".jsonnet": "config.jsonnet",
    ".json": "config.json",
    ".yml": "config.yml",
    ".yaml": "config.yml",
}
"""The formats of files with other names."""
MAX_IMPORTS = 100
"""Maximum number of imported files."""
MAX_IMPORT_BYTES = 1 << 20
"""Maximum size of all imported files together, in bytes."""
_IMPORT = re.compile(r"\bimport(?:str|bin)?\s*@?(?:\"([^\"\n]{1,500})\"|'([^'\n]{1,500})')")


def candidates() -> Iterator[str]:
    """Return the paths in a repository where a configuration may be, in the order of the search."""
    return (f"{folder}/{name}" for folder in FOLDERS for name in NAMES)


def parse_file(
    name: ConfigName,
    content: str,
    context: RefContext,
    limits: EvaluationLimits = LIMITS,
    *,
    source: str = "",
    imports: Mapping[str, str] = NO_IMPORTS,
) -> ParsedConfig:
    """Parse a file in the format of its name; errors call it `source`.

    `imports` are the texts that a jsonnet program may import, by their paths below its folder.

    Raise EvaluationError for a program that fails, ConfigError with all problems of the text or the program's output.
    """
    source = source or name
    program = PROGRAMS.get(name)
    if program is None:
        return parse_config(content, TEXTS[name], source)
    output = evaluate(content, program, source, config_context(context), limits, imports)
    return parse_config(output, "generated", source)


def gather_imports(path: Path, source: str) -> dict[str, str]:
    """Return the texts that a jsonnet file may import, by their paths below its folder.

    jsonnet imports literal paths only, so the sources name all of them. A file outside the folder (by `..`, an absolute
    path or a link), missing or not text is left out: the evaluation reports it where it is imported.

    Raise BadRequestError for more than MAX_IMPORTS files or MAX_IMPORT_BYTES.
    """
    folder = path.parent.resolve()
    found: dict[str, str] = {}
    unread = [(folder, source)]
    while unread:
        for file in _imported_files(*unread.pop(), folder):
            name = file.relative_to(folder).as_posix()
            text = None if name in found else _read_text(file)
            if text is None:
                continue
            found[name] = text
            if len(found) > MAX_IMPORTS or sum(map(len, found.values())) > MAX_IMPORT_BYTES:
                raise BadRequestError(
                    f"{path} imports more than {MAX_IMPORTS} files, or {MAX_IMPORT_BYTES} bytes",
                    code="configTooLarge",
                    hint="import less",
                )
            unread.append((file.parent, text))
    return found


def _imported_files(where: Path, source: str, folder: Path) -> list[Path]:
    named = (double or single for double, single in _IMPORT.findall(source))
    files = (Path(os.path.normpath(where / name)) for name in named)
    return [file for file in files if file.is_relative_to(folder) and file.resolve().is_relative_to(folder)]


def _read_text(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_IMPORT_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError):
        return None
