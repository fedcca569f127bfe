"""The command `runstream`: the options of all commands, and the tree of commands.

runstream [--data-dir DIR] [--url URL --token TOKEN] [--detailed-errors] COMMAND …
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from runstream.cli.commands import COMMANDS, GROUPS, OF_PROJECTS, OF_RUNS, example_text
from runstream.cli.connection import GlobalOptions, set_global_options
from runstream.service.edge import run_command
from runstream.service.signals import reset_signals

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

ASK = "__complete"
"""The hidden command that completion scripts call."""


class _OnlyAtTheRoot:
    """A formatter that shows the global options in `runstream --help` only."""

    at_root = True

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        from cyclopts.help import DefaultFormatter

        if self.at_root:
            DefaultFormatter()(console, options, panel)


_only_at_root = _OnlyAtTheRoot()
_GLOBAL = Group("Options of all commands", sort_key=0, help_formatter=_only_at_root)


def _shown_default(value: object) -> str | None:
    """Return the default as help shows it; None for an empty one."""
    return None if value in (False, "", None) else str(value)


def _version() -> str:
    from runstream.release import version

    return version()


app = App(
    name="runstream",
    help="An event-sourced CI/CD system. Start with `runstream serve`.",
    version=_version,
    default_parameter=Parameter(show_default=_shown_default),
)
app["--help"].group = _GLOBAL
app["--version"].group = _GLOBAL


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    data_dir: Annotated[Path | None, Parameter(group=_GLOBAL)] = None,
    url: Annotated[str | None, Parameter(group=_GLOBAL)] = None,
    token: Annotated[str | None, Parameter(group=_GLOBAL)] = None,
    detailed_errors: Annotated[bool, Parameter(group=_GLOBAL, negative="")] = False,
) -> int:
    """Run a command.

    Parameters
    ----------
    data_dir
        Data directory of the local service. Default: RUNSTREAM_DATA_DIR, else runstream in the user's data folder.
    url
        URL of a remote service, such as https://ci.example.com. Default: RUNSTREAM_URL, unless --data-dir is given;
        then the service of the last `runstream login`, unless RUNSTREAM_DATA_DIR is set.
    token
        API token of that service. Default: RUNSTREAM_TOKEN, or that of `runstream login`, or of the local service.
    detailed_errors
        Show the full chain of causes of an error, with file and line.
    """
    set_global_options(GlobalOptions(data_dir, url, token, detailed_errors))
    return run_command(
        lambda: app(_as_options(tokens), result_action="return_value", exit_on_error=False, print_error=False),
        detailed=detailed_errors,
    )


def _as_options(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words with `help` and `-V` turned into options."""
    match tokens:
        case ("help", *command):
            return (*command, "--help")
        case ("-V",):
            return ("--version",)
    return tokens


def _add_commands() -> None:
    runs, people, service = (
        Group(title, sort_key=place) for place, title in enumerate(("Runs", "People and projects", "The service"), 1)
    )
    headings = {
        "completion": _GLOBAL,
        **dict.fromkeys(OF_RUNS, runs),
        **dict.fromkeys(OF_PROJECTS, people),
    }
    parents = {"": app}
    for command in COMMANDS:
        *groups, last = command.words.split()
        heading: dict[str, Any] = {"group": headings.get(command.words.split()[0], service)}
        parent = ""
        for word in groups:
            words = f"{parent} {word}".strip()
            if words not in parents:
                options = {} if parent else heading
                parents[words] = App(name=word, help=GROUPS[words], version_flags=[], **options)
                parents[parent].command(parents[words])
            parent = words
        parents[parent].command(
            f"runstream.{command.function}", name=last, help=command.help, **({} if parent else heading)
        )


_add_commands()


def command_line(words: Sequence[str]) -> int:
    """Run a command line; return its exit code."""
    if list(words[:1]) == [ASK]:
        from runstream.service.completion import complete

        return complete(app, words[1:])
    if not words or {"--help", "-h", "help"} & set(words):
        _prepare_help(words)
    return run_command(
        lambda: app.meta(words, result_action="return_value", exit_on_error=False, print_error=False), detailed=False
    )


def _prepare_help(words: Sequence[str]) -> None:
    """Let the help of a command end with its examples, leave out the global options and fit the terminal of now."""
    from rich.console import Console

    app.console = app.meta.console = Console()  # without one, both keep the width of their first help
    rest = [word for word in words if word not in ("--help", "-h", "help", "--detailed-errors")]
    while rest and rest[0].startswith("--"):
        del rest[: 1 if "=" in rest[0] else 2]
    command, apps, _ = app.parse_commands(rest)
    _only_at_root.at_root = not command
    if command:
        apps[-1].help_epilogue = example_text(" ".join(command))


def main() -> None:
    """Run the command line of this process and exit with its code."""
    reset_signals()
    sys.exit(command_line(sys.argv[1:]))
