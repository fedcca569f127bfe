"""The command `runstream`: the options of all commands, and the tree of commands.

runstream [--data-dir DIR] [--url URL --token TOKEN] [--detailed-errors] COMMAND …
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from runstream.cli.app import CLIENT, example_text
from runstream.cli.app import app as client_app
from runstream.cli.connection import GlobalOptions, set_global_options
from runstream.service.edge import run_command

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

ASK = "__complete"
"""The hidden command that completion scripts call."""
_SERVICE = Group("The service", sort_key=2)


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


for command in client_app:
    if not command.startswith("-"):
        app.command(client_app[command])


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
        URL of a remote service, such as https://ci.example.com. Default: RUNSTREAM_URL, unless --data-dir is given.
    token
        API token of that service. Default: RUNSTREAM_TOKEN, or that of the local service.
    detailed_errors
        Show the full chain of causes of an error, with file and line.
    """
    set_global_options(GlobalOptions(data_dir, url, token, detailed_errors))
    return run_command(lambda: _run(_meant(tokens)), detailed=detailed_errors)


def _meant(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words with `help` and `version` turned into options."""
    match tokens:
        case ("help", *command):
            return (*command, "--help")
        case ("version" | "-V",):
            return ("--version",)
    return tokens


def _run(tokens: tuple[str, ...]) -> object:
    return app(tokens, result_action="return_value", exit_on_error=False, print_error=False)


# Named, not imported, so that a command loads only what it needs.
app.command(
    "runstream.cli.init_command:init",
    name="init",
    group=CLIENT,
    help="Write a starter configuration for this repository. Needs no running service.",
)
app.command(
    "runstream.service.serve_commands:serve_command",
    name="serve",
    group=_SERVICE,
    help="Run the service: all components, or some of them.",
)
app.command(
    "runstream.service.serve_commands:stop_command",
    name="stop",
    group=_SERVICE,
    help="Stop the service of this data directory.",
)
app.command(
    "runstream.service.status_command:status_command",
    name="status",
    group=_SERVICE,
    help="Show whether the service is running, where, since when, and what it is doing.",
)
app.command(
    "runstream.cli.client_session:print_environment",
    name="env",
    group=_SERVICE,
    help='Print RUNSTREAM_URL and RUNSTREAM_TOKEN for a shell: eval "$(runstream env)".',
)
app.command(
    "runstream.service.doctor:doctor_command",
    name="doctor",
    group=_SERVICE,
    help="Check servers, durability, migrations, clocks and disk, and suggest fixes.",
)
app.command(
    "runstream.service.database_commands:fsck_command",
    name="fsck",
    group=_SERVICE,
    help="Check every row of the database, and the archive, against the log.",
)
app.command(
    "runstream.service.database_commands:rebuild_command",
    name="rebuild",
    group=_SERVICE,
    help="Rebuild the database from the log without downtime.",
)

parked_app = App(
    name="parked",
    help="Inspect, retry and skip parked commits: those that could not be read or applied.",
    version_flags=[],
    group=_SERVICE,
)
for name, says in (
    ("list", "List parked commits with their positions and reasons."),
    ("show", "Show a parked commit as it is stored in the log."),
    ("retry", "Ask the scheduler to apply parked commits again."),
    ("skip", "Skip a parked commit for good."),
):
    parked_app.command(f"runstream.service.parked_commands:{name}_command", name=name, help=says)
app.command(parked_app)

app.command(
    "runstream.service.export_command:export_command",
    name="export",
    group=_SERVICE,
    help="Export the log to a file while the service keeps running.",
)
app.command(
    "runstream.service.epoch_commands:import_command",
    name="import",
    group=_SERVICE,
    help="Replace the log with a snapshot (requires maintenance mode).",
)
epochs_app = App(
    name="epochs", help="List, activate and delete epochs (generations of the log).", version_flags=[], group=_SERVICE
)
for name, says in (
    ("list", "List epochs and show which one is active."),
    ("activate", "Switch to another epoch (requires maintenance mode)."),
    ("delete", "Delete an epoch that is not active."),
):
    epochs_app.command(f"runstream.service.epoch_commands:{name}_command", name=name, help=says)
app.command(epochs_app)
snapshot_app = App(name="snapshot", help="Verify, show and compare snapshot files.", version_flags=[], group=_SERVICE)
for name, says in (
    ("verify", "Verify a snapshot: every hash, commit and reference."),
    ("show", "Show the contents of a snapshot, or one of its commits."),
    ("diff", "Compare the commits of two snapshots."),
    ("keygen", "Generate a key pair for signing snapshots."),
):
    snapshot_app.command(f"runstream.service.snapshot_commands:{name}_command", name=name, help=says)
app.command(snapshot_app)


@app.command(name="completion", group=_GLOBAL)
def completion_command(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a shell completion script: eval "$(runstream completion bash)"."""
    from runstream.service.completion import SCRIPTS

    sys.stdout.write(SCRIPTS[shell])


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
    """Let the help of a command end with its examples and leave out the global options."""
    rest = [word for word in words if word not in ("--help", "-h", "help", "--detailed-errors")]
    while rest and rest[0].startswith("--"):
        del rest[: 1 if "=" in rest[0] else 2]
    command, apps, _ = app.parse_commands(rest)
    _only_at_root.at_root = not command
    if command:
        apps[-1].help_epilogue = example_text(" ".join(command))


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(command_line(sys.argv[1:]))
