"""Commands for who runs the service: is the projection right, what could not be applied, is all well."""

from __future__ import annotations

from typing import Annotated

import uvloop
from cyclopts import Parameter

from runstream.cli.connection import given
from runstream.cli.output import Output, moment, print_json, print_table, say
from runstream.commits import Position
from runstream.database import Database, require_migrated
from runstream.errors import BadRequestError
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import open_log
from runstream.projections.comparing import Report
from runstream.projections.fsck import fsck
from runstream.projections.parked import ParkedCommit, list_parked, request_retry
from runstream.service.doctor.command import examine, show
from runstream.service.reaching import reached
from runstream.service.serve_options import ServerOptions, settings_of
from runstream.settings import Settings


def doctor_command(
    *,
    output: Output = "table",
    nats_admin_url: Annotated[str | None, Parameter(env_var="RUNSTREAM_NATS_ADMIN_URL")] = None,
    options: ServerOptions | None = None,
) -> int:
    """Check servers, versions, durability, migrations, clocks and disk, and say what to do. Exits 1 on a problem.

    Parameters
    ----------
    output
        A table, or JSON for programs.
    nats_admin_url
        A user of NATS's system account, who may ask how the server syncs to disk.
    """
    return show(uvloop.run(examine(_settings(options), nats_admin_url)), output)


def fsck_command(
    *,
    partition: Annotated[list[int] | None, Parameter(negative="")] = None,
    output: Output = "table",
    options: ServerOptions | None = None,
) -> int:
    """Fold the whole log again and compare it with every row of the database. Exits 1 when something differs.

    Parameters
    ----------
    partition
        Only this partition; can be repeated.
    output
        Lines, or JSON for programs.
    """
    report = uvloop.run(_fsck(_settings(options), partition))
    if output == "json":
        differences = [str(difference) for difference in report.differences]
        print_json({"commits": report.commits, "rows": report.rows, "count": report.count, "differences": differences})
    else:
        say("\n".join(report.lines()))
    return report.exit_status


def parked_list(*, output: Output = "table", options: ServerOptions | None = None) -> None:
    """List parked commits: where they are, and why.

    Parameters
    ----------
    output
        A table, or JSON for programs.
    """
    commits = uvloop.run(_list_parked(_settings(options)))
    if output == "json":
        print_json([_parked_json(commit) for commit in commits])
        return
    rows = [(_shown(commit.position), commit.aggregate, moment(commit.at), commit.reason) for commit in commits]
    print_table(("position", "aggregate", "parked", "why"), rows, "nothing is parked")


def parked_retry(*positions: str, options: ServerOptions | None = None) -> None:
    """Ask the scheduler to try parked commits again.

    Parameters
    ----------
    positions
        Which, as EPOCH/PARTITION/SEQUENCE, as `parked list` shows them; none for all.
    """
    asked = uvloop.run(_retry(_settings(options), [_position(text) for text in positions]))
    say(f"{asked} parked commits are tried again; `runstream parked list` shows what is left")


def _settings(options: ServerOptions | None) -> Settings:
    return settings_of(options or ServerOptions(), given())


async def _fsck(settings: Settings, partitions: list[int] | None) -> Report:
    async with reached(settings) as (complete, _), nats_connection(complete.nats_url, "runstream fsck") as client:
        await require_migrated(complete.database_url, complete.database_schema)
        database = Database(complete.database_url, complete.database_schema, pool_size=2)
        try:
            async with await open_log(client, complete.namespace) as log:
                wrong = [number for number in partitions or () if not 0 <= number < log.partitions]
                if wrong:
                    raise BadRequestError(
                        f"the log has no partition {wrong[0]}",
                        code="invalidPartition",
                        hint=f"its partitions are 0 to {log.partitions - 1}",
                    )
                return await fsck(database, log, partitions)
        finally:
            await database.close()


async def _list_parked(settings: Settings) -> tuple[ParkedCommit, ...]:
    async with reached(settings) as (complete, _):
        database = Database(complete.database_url, complete.database_schema, pool_size=1)
        try:
            async with database.snapshot() as transaction:
                return await list_parked(transaction)
        finally:
            await database.close()


async def _retry(settings: Settings, positions: list[Position]) -> int:
    async with reached(settings) as (complete, _):
        database = Database(complete.database_url, complete.database_schema, pool_size=1)
        try:
            return await request_retry(database, positions)
        finally:
            await database.close()


def _shown(position: Position) -> str:
    return f"{position.epoch}/{position.partition}/{position.sequence}"


def _position(text: str) -> Position:
    parts = text.split("/")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise BadRequestError(
            f"{text[:80]!r} is not the position of a commit",
            code="invalidPosition",
            hint="it is EPOCH/PARTITION/SEQUENCE, as `runstream parked list` shows it: 1/0/812",
        )
    return Position(*map(int, parts))


def _parked_json(commit: ParkedCommit) -> dict[str, object]:
    return {
        "position": _shown(commit.position),
        "subject": commit.subject,
        "aggregate": commit.aggregate,
        "reason": commit.reason,
        "at": commit.at,
    }
