"""`runstream env`: how other programs and shells reach the service that this command line uses."""

from __future__ import annotations

import os
import shlex
from typing import Literal

from runstream.cli.connection import find_service, given
from runstream.cli.failures import told_by_service
from runstream.cli.output import say


def print_environment(*, shell: Literal["sh", "fish"] = "sh") -> None:
    """Print the variables that name this service, for a shell to evaluate.

    Parameters
    ----------
    shell
        sh also fits bash and zsh.
    """
    with told_by_service():
        service = find_service(given(), os.environ)
    variables = {"RUNSTREAM_URL": service.url, "RUNSTREAM_TOKEN": service.token}
    if service.data_dir is not None:
        variables["RUNSTREAM_DATA_DIR"] = str(service.data_dir.absolute())
    for name, value in variables.items():
        if value:
            say(f"set -gx {name} {shlex.quote(value)}" if shell == "fish" else f"export {name}={shlex.quote(value)}")
