"""`runstream serve`: what it says once it serves."""

from __future__ import annotations

import shlex
import sys

import uvloop

from runstream.service.components import Parts
from runstream.service.serve import serve
from runstream.settings import Settings


def run_serve(settings: Settings) -> int:
    """Serve until stopped."""
    uvloop.run(serve(settings, _say_ready))
    return 0


def _say_ready(settings: Settings, parts: Parts) -> None:
    """What to do next, on stdout, which is otherwise silent."""
    lines = [f"runstream serves {', '.join(settings.components)} at {parts.web.url}"]
    if parts.gateway:
        where = f"--data-dir {shlex.quote(str(settings.data_dir))}"
        lines += [
            f"  data      {settings.data_dir}",
            f"  try       runstream {where} run create --config .runstream/config.yml --follow",
            f"  look      runstream {where} run list",
            f"  check     runstream {where} doctor",
            "  stop      Ctrl-C",
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
