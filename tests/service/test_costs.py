"""A process imports only what its components need: the others cost no start time and no memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

DATABASE = {"sqlalchemy", "asyncpg"}
GATEWAY = {"fastapi", "runstream.gateway", "runstream.importing.importer"}
SECRETS = {"runstream.sealing"}
SCHEDULER = {"runstream.scheduler.scheduler"}
RARE = {"alembic", "ruamel.yaml"}
"""For a database that is not up to date, and for files of settings."""
EXECUTOR = {"runstream.executor.executor"}


@pytest.mark.parametrize(
    ("component", "spared"),
    [
        ("executor", DATABASE | GATEWAY | SCHEDULER),
        ("scheduler", GATEWAY | EXECUTOR | SECRETS),
        ("datamanager", GATEWAY | EXECUTOR | SCHEDULER | SECRETS),
        ("gateway", EXECUTOR),
    ],
)
def test_a_component_does_not_import_what_others_need(component: str, spared: set[str]) -> None:
    script = f"""
import sys
import runstream.service.serve_commands
import runstream.service.wiring.{component}
if {component!r} != "executor":
    import runstream.importing.epochs, runstream.database.migrating, runstream.datamanager.startup
print(sorted({spared | RARE!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
