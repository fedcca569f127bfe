"""`runstream serve` and `runstream stop`: in the foreground or behind, and what is said once it serves."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import uvloop
from cyclopts import Parameter

from runstream.cli.connection import global_options, program_command
from runstream.garbage import collect_seldom
from runstream.service.data_dir import DataDir, needed_bytes
from runstream.service.detached import start_detached, stop_detached
from runstream.service.serve_options import ServeOptions, settings_of
from runstream.settings import Settings

if TYPE_CHECKING:
    from runstream.service.components import Parts


def serve_command(
    *, detach: Annotated[bool, Parameter(negative="")] = False, options: ServeOptions | None = None
) -> int:
    """Run the service: everything on this machine, or some of its parts.

    With no options, NATS and Postgres are started in the data directory. Each option can also be given as
    RUNSTREAM_NAME (RUNSTREAM_NATS_URL) in the environment or
    as a line of a settings file (nats_url: …).

    Parameters
    ----------
    detach
        Return once it serves, and let it go on in the background; `runstream stop` ends it.
    """
    settings = settings_of(options or ServeOptions(), global_options())
    if detach:
        after = sys.argv[sys.argv.index("serve") + 1 :]
        return start_detached(settings.data_dir, [argument for argument in after if argument != "--detach"])
    with DataDir.hold(settings.data_dir, needed_bytes(settings)) as data_dir:
        # Importing takes a second; `runstream stop` finds the process meanwhile.
        from runstream.service.serve import serve

        collect_seldom()
        uvloop.run(serve(settings, data_dir, say_ready))
    return 0


def stop_command() -> int:
    """Stop the service of this data directory, and wait until all of it has ended."""
    return stop_detached(settings_of(ServeOptions(), global_options()).data_dir)


def say_ready(settings: Settings, parts: Parts) -> None:
    """Say what to do next, on stdout, which is otherwise silent."""
    lines = [f"runstream serves {', '.join(settings.components)} at {parts.web.url}"]
    if parts.gateway:
        us = program_command()
        lines += [
            f"  data      {settings.data_dir}",
            f"  try       {us} run create --config .runstream/config.yml --follow",
            f"  look      {us} run list",
            f"  check     {us} doctor",
        ]
    for executor in parts.executors:
        if lack := executor.lack_of_sandbox:
            lines.append(f"  WARNING   tasks run WITHOUT a sandbox ({lack}): they can do all that this user can")
    lines.append("  stop      Ctrl-C")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
