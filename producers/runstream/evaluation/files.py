"""The names of configuration files, in their order, and one way to read each of them (rules config-1 and config-2).

Reading may evaluate a program, so it blocks for as long as the limits allow; `reader` does it beside an event loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from runstream.evaluation.evaluation import LIMITS, Limits, ProgramFormat, evaluate
from runstream.runconfig import Format, ParsedConfig, RefContext, config_context, parse_config

_NOTHING: Mapping[str, str] = {}
FOLDERS = (".runstream", ".agola")
ConfigName = Literal["config.star", "config.jsonnet", "config.json", "config.yml"]
PROGRAMS: dict[str, ProgramFormat] = {"config.star": "starlark", "config.jsonnet": "jsonnet"}
TEXTS: dict[str, Format] = {"config.json": "json", "config.yml": "yaml"}
NAMES: tuple[ConfigName, ...] = ("config.star", "config.jsonnet", "config.json", "config.yml")
"""In the order in which they are looked for; the first that is there is taken."""
SUFFIXES: dict[str, ConfigName] = {
    ".star": "config.star",
    ".jsonnet": "config.jsonnet",
    ".json": "config.json",
    ".yml": "config.yml",
    ".yaml": "config.yml",
}
"""What a file of any other name is read as."""


def candidates() -> Iterator[str]:
    """Where a configuration is looked for in a repository, in this order."""
    return (f"{folder}/{name}" for folder in FOLDERS for name in NAMES)


def parse_file(
    name: ConfigName,
    content: str,
    context: RefContext,
    limits: Limits = LIMITS,
    *,
    source: str = "",
    imports: Mapping[str, str] = _NOTHING,
) -> ParsedConfig:
    """The configuration that a file is, whatever its format; `source` is what messages call it.

    `imports` are the texts that a jsonnet program may import, by their paths below its folder.

    Raises EvaluationError for a program that fails, ConfigError with everything that is wrong with what was read.
    """
    source = source or name
    program = PROGRAMS.get(name)
    if program is None:
        return parse_config(content, TEXTS[name], source)
    made = evaluate(content, program, source, config_context(context), limits, imports)
    return parse_config(made, "generated", source)
