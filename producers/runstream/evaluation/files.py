"""The files of a configuration: their names, in order (rules config-1 and config-2), their imports, and parsing them.

Parsing may evaluate a program, so it blocks for as long as the limits allow; beside an event loop use ConfigReader.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Literal, cast

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

    A file outside the folder (by `..`, an absolute path or a link), missing or not text is left out: the evaluation
    reports it where it is imported. Raise BadRequestError for too many or too large ones.
    """
    folder = path.parent.resolve()
    importing = imports_of(source, str(path))
    try:
        wanted = next(importing)
        while True:
            file = folder / wanted
            wanted = importing.send(_read_text(file) if file.resolve().is_relative_to(folder) else None)
    except StopIteration as end:
        return cast("dict[str, str]", end.value)


def imports_of(source: str, path: str) -> Generator[str, str | None, dict[str, str]]:
    """Find what a jsonnet program may import: yield the path of each file below its folder, for its text to be sent.

    None stands for a file that cannot be read. jsonnet imports literal paths only, so the sources name all of them.
    Return the texts by their paths. Raise BadRequestError for more than MAX_IMPORTS files or MAX_IMPORT_BYTES; it names
    the program by `path`.
    """
    found: dict[str, str] = {}
    unread = [("", source)]
    while unread:
        for name in _imported(*unread.pop()):
            text = None if name in found else (yield name)
            if text is None:
                continue
            found[name] = text
            if len(found) > MAX_IMPORTS or sum(map(len, found.values())) > MAX_IMPORT_BYTES:
                raise BadRequestError(
                    f"{path} imports more than {MAX_IMPORTS} files, or {MAX_IMPORT_BYTES} bytes",
                    code="configTooLarge",
                    hint="import less",
                )
            unread.append((posixpath.dirname(name), text))
    return found


def _imported(where: str, source: str) -> list[str]:
    """Return the paths below the folder that a text in its subfolder `where` imports."""
    names = (posixpath.normpath(posixpath.join(where, one or other)) for one, other in _IMPORT.findall(source))
    return [name for name in names if not name.startswith(("/", "..")) and "\0" not in name]


def _read_text(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_IMPORT_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError):
        return None
