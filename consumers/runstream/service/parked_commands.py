"""`runstream parked`: commits that could not be read or applied."""

from __future__ import annotations

import uvloop

from runstream.cli.connection import given
from runstream.cli.output import Output, moment, print_json, print_table, say
from runstream.commits import Position
from runstream.database import Database
from runstream.errors import BadRequestError
from runstream.projections.parked import ParkedCommit, list_parked, request_retry
from runstream.service.reaching import reached
from runstream.service.serve_options import ServerOptions, settings_of
from runstream.settings import Settings


def parked_list(*, output: Output = "table", options: ServerOptions | None = None) -> None:
    """List parked commits: where they are, and why.

    Parameters
    ----------
    output
        A table, or JSON for programs.
    """
    commits = uvloop.run(_list_parked(_settings(options)))
    if output == "json":
        print_json([_json(commit) for commit in commits])
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


def _json(commit: ParkedCommit) -> dict[str, object]:
    return {
        "position": _shown(commit.position),
        "subject": commit.subject,
        "aggregate": commit.aggregate,
        "reason": commit.reason,
        "at": commit.at,
    }
