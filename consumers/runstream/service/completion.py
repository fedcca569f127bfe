"""Shell completion: commands, options, and names that the service knows.

A shell's script asks `runstream __complete WORDS…`; the last word is the one being typed. Errors are not printed,
because they would appear in the middle of the command line.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from runstream.cli.connection import GlobalOptions, connect, set_global_options
from runstream.service.main import ASK

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.argument import Argument


_SECONDS = 2.0
"""Bound, in seconds, of asking the service for names; after it, none is offered."""
_RUNS = 40
_GLOBAL = ("--data-dir", "--url", "--token")
_FLAGS = ("--detailed-errors",)
SCRIPTS = {
    "bash": f"""_runstream() {{
  local IFS=$'\\n'
  COMPREPLY=($("${{COMP_WORDS[0]}}" {ASK} "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null))
}}
complete -o default -F _runstream runstream
""",
    "zsh": f"""#compdef runstream
_runstream() {{
  local -a found
  found=("${{(@f)$("${{words[1]}}" {ASK} "${{(@)words[2,CURRENT]}}" 2>/dev/null)}}")
  [[ -n $found ]] && compadd -- $found || _files
}}
compdef _runstream runstream
""",
    "fish": f"""complete --command runstream --arguments \\
  '(runstream {ASK} (commandline --tokenize --cut-at-cursor --current-process)[2..] "$(commandline --current-token)")'
""",
}


def completion_command(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a shell completion script."""
    sys.stdout.write(SCRIPTS[shell])


def complete(app: App, words: Sequence[str]) -> int:
    """Print the completions of the last word, one a line."""
    try:
        found = _candidates(app, words)
    except Exception:  # noqa: BLE001  an error must not disturb the command line
        return 1
    prefix = words[-1] if words else ""
    sys.stdout.write("".join(f"{one}\n" for one in dict.fromkeys(found) if one.startswith(prefix)))
    return 0


def _candidates(app: App, words: Sequence[str]) -> list[str]:
    before, prefix = _without_global(words[:-1]), words[-1] if words else ""
    if before is None:
        return []
    command, apps, rest = app.parse_commands(before)
    if not command or apps[-1].default_command is None:
        if rest:
            return []
        names = [name for name in apps[-1] if not name.startswith("-")]
        return [*_GLOBAL, *_FLAGS, "--help", "--version"] if prefix.startswith("-") and not command else names
    arguments = [one for one in apps[-1].assemble_argument_collection() if one.show and one.names != ("*",)]
    options = {name: one for one in arguments for name in one.names if name.startswith("-")}
    if rest and rest[-1] in options and _takes_value(options[rest[-1]]):
        return _values(options[rest[-1]], rest[-1].lstrip("-"), [])
    if prefix.startswith("-"):
        return [name for name in options if name.startswith("--")] + ["--help"]
    given = _positional(rest, options)
    here = [one for one in arguments if one.index == len(given)]
    return _values(here[0], here[0].names[0].lower(), given) if here else []


def _without_global(words: Sequence[str]) -> list[str] | None:
    """Return the words without the global options, which are remembered; None while one's value is typed."""
    values: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("--"):
        name, equals, value = rest.pop(0).partition("=")
        if name in _FLAGS:
            continue
        if name not in _GLOBAL or not (equals or rest):
            return None
        values[name] = value if equals else rest.pop(0)
    data_dir = values.get("--data-dir")
    set_global_options(GlobalOptions(Path(data_dir) if data_dir else None, values.get("--url"), values.get("--token")))
    return rest


def _takes_value(argument: Argument) -> bool:
    return argument.hint is not bool


def _positional(words: Iterable[str], options: dict[str, Argument]) -> list[str]:
    found: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = word in options and _takes_value(options[word])
        else:
            found.append(word)
    return found


def _values(argument: Argument, name: str, given: Sequence[str]) -> list[str]:
    """Return the values of an option or argument: its choices, or names that the service knows."""
    if choices := argument.get_choices():
        return list(choices)
    if name not in ("run", "task", "executor", "group", "project"):
        return []
    return asyncio.run(_ask_service(name, given))


async def _ask_service(name: str, given: Sequence[str]) -> list[str]:
    from runstream.cli.finding import find_run, run_name
    from runstream.names import project_of

    async with asyncio.timeout(_SECONDS), connect() as client:
        if name == "executor":
            return [executor.executor_id for executor in await client.executors.list()]
        if name == "task":
            run = await find_run(client, given[0])
            return sorted(task.name for task in run.tasks.values())
        runs = (await client.runs.page(limit=_RUNS)).runs
        if name == "run":
            return [*map(run_name, runs), "latest"]
        groups = sorted({run.group for run in runs})
        return groups if name == "group" else sorted({project_of(group) for group in groups})
