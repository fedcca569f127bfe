"""The command `runstream`: options that hold for all commands, then the command.

runstream [--data-dir DIR] [--url URL --token TOKEN] [--detailed-errors] COMMAND …
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from runstream.cli.app import app as client_app
from runstream.cli.connection import Given, given, remember
from runstream.service.data_commands import SERVICE, doctor_command, fsck_command, parked_app
from runstream.service.edge import run_command
from runstream.service.serve_command import run_serve
from runstream.service.serve_options import ServeOptions, settings_of

_GLOBAL = Group("Options of all commands", sort_key=0)

app = App(
    name="runstream",
    help="An event-sourced CI/CD system. Begin with `runstream serve`.",
    version=version("runstream"),
)
app["--help"].group = _GLOBAL
app["--version"].group = _GLOBAL


for command in client_app:
    if not command.startswith("-"):
        app.command(client_app[command])


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    data_dir: Annotated[Path | None, Parameter(group=_GLOBAL, env_var="RUNSTREAM_DATA_DIR")] = None,
    url: Annotated[str | None, Parameter(group=_GLOBAL, env_var="RUNSTREAM_URL")] = None,
    token: Annotated[str | None, Parameter(group=_GLOBAL, env_var="RUNSTREAM_TOKEN", show_env_var=True)] = None,
    detailed_errors: Annotated[bool, Parameter(group=_GLOBAL, negative="")] = False,
) -> int:
    """Run a command.

    Parameters
    ----------
    data_dir
        The local service's data directory. Default: runstream in the user's data folder.
    url
        A service elsewhere, such as https://ci.example.com.
    token
        The token of its API.
    detailed_errors
        Show the whole chain of an error's causes with file and line.
    """
    remember(Given(data_dir, url, token, detailed_errors))
    return run_command(lambda: app(tokens, result_action="return_value"), detailed=detailed_errors)


@app.command(group=SERVICE, name="serve")
def serve_command(options: ServeOptions | None = None) -> int:
    """Run the service: everything on this machine, or some of its parts.

    With no options, NATS and Postgres are started in the data directory. Each option can also be given as
    RUNSTREAM_NAME (RUNSTREAM_NATS_URL) in the environment or
    as a line of a settings file (nats_url: …).
    """
    return run_serve(settings_of(options or ServeOptions(), given()))


app.command(doctor_command, name="doctor", group=SERVICE)
app.command(fsck_command, name="fsck", group=SERVICE)
app.command(parked_app)


def main() -> None:
    """The console script."""
    sys.exit(app.meta(result_action="return_value"))
