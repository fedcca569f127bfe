"""docs/reference/cli.md is generated from the commands themselves: `python -m tests.docs.cli_reference` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from inspect import Parameter
from pathlib import Path

from cyclopts import App, Argument

from runstream.cli.commands import EXAMPLES
from runstream.service.main import app

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
_BEGIN = """\
# Commands

    runstream [OPTIONS OF ALL COMMANDS] COMMAND [ARGUMENTS] [OPTIONS]

`runstream COMMAND --help` prints the same text. This page is generated from the commands.

Commands for runs, people and projects talk to the service of `--url`, or else to the local one of `--data-dir`, to
that of the last `runstream login`, or to the local one. `RUN` is `PROJECT/NUMBER`
such as `/project/web/12`, an id or the beginning of one, `latest`, or `GROUP/latest` such as `/project/web/latest`;
inside a clone of the project's repository its number is enough. Results go to stdout, errors to stderr.

| exit code | |
|---|---|
| 0 | success; with `--follow`, every run succeeded |
| 1 | an error; with `--follow`, a run failed |
| 2 | the command line is invalid |
| 3 | with `--follow`: a run was stopped or cancelled, and none failed |
| 130 | Ctrl-C |
| 141 | the reader of the output closed it, as in `runstream … \\| head` |

On a terminal, tables fit its width: text wraps, and the least important columns are dropped. In a pipe, all columns are
printed. Programs should use `--output json`.
"""

_SERVERS = frozenset({"--config", "--namespace", "--nats-url", "--database-url", "--database-schema"})
"""Options of all commands that work with the servers: described once, with `serve`."""


def reference() -> str:
    """The whole page."""
    sections = [
        _BEGIN,
        "## Options of all commands\n",
        "Place these before the command.\n",
        _table(_arguments(app.meta)),
    ]
    for name, command in all_commands(app, "runstream"):
        sections += _section(name, command)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(sections)).rstrip("\n") + "\n"


def all_commands(parent: App, path: str) -> Iterator[tuple[str, App]]:
    """Yield each command below an application, with its words."""
    for name in parent:
        if not name.startswith("-"):
            if parent[name].default_command is not None:
                yield f"{path} {name}", parent[name]
            yield from all_commands(parent[name], f"{path} {name}")


def _arguments(command: App) -> list[Argument]:
    """Return the arguments and options that a command shows."""
    return [argument for argument in command.assemble_argument_collection(parse_docstring=True) if argument.show]


def _section(name: str, command: App) -> list[str]:
    arguments = _arguments(command)
    positional = [argument for argument in arguments if not argument.name.startswith("-")]
    usage = " ".join([name, *(_placeholder(argument) for argument in positional)])
    section = [f"\n## {name}\n", f"    {usage}{' [OPTIONS]' if len(arguments) > len(positional) else ''}\n"]
    section.append(f"{' '.join(command.help.split())}\n")
    servers = _SERVERS if name != "runstream serve" and {each.name for each in arguments} >= _SERVERS else frozenset()
    examples = "\n".join(f"    {line}" for line in EXAMPLES[name.removeprefix("runstream ")])
    section.append(f"{examples}\n")
    if own := [argument for argument in arguments if argument.name not in servers]:
        section.append(_table(own))
    if servers:
        named = ", ".join(f"`{argument.name}`" for argument in arguments if argument.name in servers)
        section.append(f"{'And' if own else ''} {named}: as for [runstream serve](#runstream-serve).\n".lstrip())
    return section


def _placeholder(argument: Argument) -> str:
    return f"[{argument.name}…]" if argument.field_info.kind is Parameter.VAR_POSITIONAL else argument.name


def _table(arguments: Sequence[Argument]) -> str:
    rows = [f"| {', '.join(f'`{name}`' for name in one.names)} | {_meaning(one)} |" for one in arguments]
    return "\n".join(["| | |", "|---|---|", *rows, ""])


def _meaning(argument: Argument) -> str:
    said = " ".join((argument.parameter.help or "").split())
    choices = argument.get_choices()
    default = argument.field_info.default
    parts = [said]
    if choices:
        parts.append(f"One of {', '.join(f'`{choice}`' for choice in choices)}.")
    if default not in (Parameter.empty, None, "", False) and "Default:" not in said:
        parts.append(f"Default: {default}.")
    if names := [str(name) for name in argument.parameter.env_var or ()]:
        parts.append(f"Environment: `{names[0]}`.")
    return re.sub(r"(?<!`)\b(RUNSTREAM_\w*\*?)", r"`\1`", " ".join(parts)).strip()


if __name__ == "__main__":
    REFERENCE.write_text(reference())
