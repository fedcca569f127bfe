"""`runstream doctor`: run all checks, and show what was found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter
from rich.text import Text

from runstream.cli.connection import global_options
from runstream.cli.output import Column, Output, print_json, print_table
from runstream.errors import RunstreamError
from runstream.service.doctor.consumers import consumers
from runstream.service.doctor.finding import Finding, Status, guarded
from runstream.service.doctor.keys import secrets_keys
from runstream.service.doctor.machine import machine
from runstream.service.doctor.nats import nats_server
from runstream.service.doctor.objects import object_storage
from runstream.service.doctor.postgres import postgres
from runstream.service.doctor.running import running_service
from runstream.service.reaching import reached
from runstream.service.serve import needs_database
from runstream.service.serve_options import ServerOptions, settings_of
from runstream.settings import Settings

_COLUMNS = (Column(""), Column("what", wraps=True), Column("found", wraps=True), Column("what to do", wraps=True))
_STYLES: dict[Status, str] = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "dim"}


def doctor_command(
    *,
    output: Output = "table",
    nats_admin_url: Annotated[str | None, Parameter(env_var="RUNSTREAM_NATS_ADMIN_URL")] = None,
    options: ServerOptions | None = None,
) -> int:
    """Check servers, versions, durability, migrations, clocks, disk and keys, and say what to do. Exits 1 on a problem.

    Parameters
    ----------
    output
        A table, or JSON for programs.
    nats_admin_url
        A user of NATS's system account, who may ask how the server syncs to disk.
    """
    return show(uvloop.run(examine(settings_of(options or ServerOptions(), global_options()), nats_admin_url)), output)


async def examine(settings: Settings, admin_url: str | None) -> list[Finding]:
    """All findings. `admin_url` is a user of NATS's system account, where the user gave one."""
    findings = [running_service(settings), *[finding async for finding in machine(settings)]]
    findings += [finding async for finding in guarded("secrets keys", secrets_keys(settings))]
    try:
        async with reached(settings) as (complete, own_admin_url):
            nats_folder = None if settings.nats_url else settings.data_dir / "nats"
            findings += [finding async for finding in _servers(complete, admin_url or own_admin_url, nats_folder)]
    except RunstreamError as error:
        findings.append(Finding("servers", "problem", error.message, error.hint))
    return findings


async def _servers(settings: Settings, admin_url: str | None, nats_folder: Path | None) -> AsyncIterator[Finding]:
    async for finding in guarded("NATS", nats_server(settings, admin_url, nats_folder)):
        yield finding
    if needs_database(settings):
        async for finding in guarded("Postgres", postgres(settings)):
            yield finding
        async for finding in guarded("consumers of the log", consumers(settings)):
            yield finding
    async for finding in guarded("object storage", object_storage(settings)):
        yield finding


def show(findings: Sequence[Finding], output: str) -> int:
    """Print them; 1 when something is wrong, else 0."""
    if output == "json":
        print_json([{"what": f.what, "status": f.status, "found": f.found, "todo": f.todo} for f in findings])
    else:
        rows = [(Text(f.status, _STYLES[f.status]), f.what, f.found, f.todo) for f in findings]
        print_table(_COLUMNS, rows, "nothing was checked")
    return int(any(finding.status == "problem" for finding in findings))
