"""`runstream parked`: list and show commits that could not be read or applied; retry or skip them."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import uvloop

from runstream.cli.config_inputs import Flag
from runstream.cli.connection import with_program
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say, timestamp
from runstream.commits import Position
from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.maintenance.request import MaintenanceControl
from runstream.projections.parked import (
    ParkedCommit,
    SkipDecision,
    list_parked,
    list_skip_decisions,
    request_retry,
    skip_commit,
)
from runstream.projections.parked_commit import FoundCommit, body_of, find
from runstream.service.configuration import OfService, ServerOptions, settings_of
from runstream.service.connections import connected, migrated_database
from runstream.service.servers import reached
from runstream.settings import Settings
from runstream.subjects import aggregate_of

_CLIENT = "runstream parked"
_SHOWN_BEHIND = 20
_PARKED: dict[Column, Callable[[ParkedCommit], Cell]] = {
    Column("position"): lambda one: str(one.position),
    Column("aggregate"): lambda one: one.aggregate,
    Column("parked", drop=1): lambda one: timestamp(one.at),
    Column("why", wraps=True): lambda one: one.reason,
}
_SKIPPED: dict[Column, Callable[[SkipDecision], Cell]] = {
    Column("decided"): lambda one: str(one.position),
    Column("subject"): lambda one: one.subject,
    Column("it was at"): lambda one: one.skipped,
    Column("when", drop=1): lambda one: timestamp(one.at),
    Column("by", drop=2): lambda one: one.by,
    Column("why", wraps=True): lambda one: one.reason,
}


def lines_of(found: FoundCommit) -> list[str]:
    """Return the commit as lines for people."""
    message = found.message
    lines = [
        f"position   {message.position}",
        f"aggregate  {aggregate_of(message.subject)}",
        f"subject    {message.subject}",
        f"stored     {timestamp(message.stored_at)}",
        *(f"header     {name}: {value}" for name, value in sorted(message.headers.items())),
    ]
    if found.parked is not None:
        lines += [f"parked     {timestamp(found.parked.at)}", f"why        {found.parked.reason}"]
        lines.append(f"behind it  {_positions_text(found.behind)}")
    if found.decided is not None:
        one = found.decided
        lines.append(f"skipped    {timestamp(one.at)} by {one.by}, recorded at {one.position}: {one.reason}")
    json, text, base64 = body_of(message)
    if json is not None:
        shown = msgspec.json.format(json, indent=2).decode()
    else:
        shown = text if text is not None else f"{base64}"
    kind = "JSON" if json is not None else "text" if text is not None else "neither JSON nor text, in base64"
    return [*lines, f"body       {counted(len(message.data), 'byte')}; {kind}:", shown]


def json_of(found: FoundCommit) -> dict[str, object]:
    """Return the commit as JSON values; one of `json`, `text` and `base64` of the body is not null."""
    message, parked, one = found.message, found.parked, found.decided
    json, text, base64 = body_of(message)
    return {
        "position": str(message.position),
        "aggregate": aggregate_of(message.subject),
        "subject": message.subject,
        "stored_at": message.stored_at,
        "headers": message.headers,
        "parked": None if parked is None else {"at": parked.at, "reason": parked.reason},
        "behind": [str(position) for position in found.behind],
        "skipped": None if one is None else _values(one, "position", "by", "at", "reason"),
        "body": {"json": None if json is None else msgspec.Raw(json), "text": text, "base64": base64},
    }


def _positions_text(positions: tuple[Position, ...]) -> str:
    if not positions:
        return "nothing"
    shown = ", ".join(map(str, positions[:_SHOWN_BEHIND]))
    more = f", and {len(positions) - _SHOWN_BEHIND} more" if len(positions) > _SHOWN_BEHIND else ""
    return f"{counted(len(positions), 'commit')}: {shown}{more}"


def list_command(
    *,
    skipped: Flag = False,
    service: OfService = "runs",
    output: Output = "table",
    options: ServerOptions | None = None,
) -> None:
    """List parked commits: where they are, and why.

    Parameters
    ----------
    skipped
        List skipped commits instead: who skipped them, when and why.
    """
    if skipped:
        _list_skipped(uvloop.run(_decided(settings_of(options), service)), output)
        return
    commits = uvloop.run(_parked(settings_of(options), service))
    if output == "json":
        print_json([_values(one, "position", "subject", "aggregate", "reason", "at") for one in commits])
    else:
        print_items(commits, _PARKED, "nothing is parked")


def show_command(
    position: str, /, *, service: OfService = "runs", output: Output = "table", options: ServerOptions | None = None
) -> None:
    """Show a parked commit as it is in the log, why it is parked, and what waits behind it.

    Parameters
    ----------
    position
        EPOCH/PARTITION/SEQUENCE of a parked or skipped commit, as `parked list` shows it.
    """
    found = uvloop.run(_find(settings_of(options), service, Position.parse(position)))
    if output == "json":
        print_json(json_of(found))
    else:
        say("\n".join(lines_of(found)))


def retry_command(*positions: str, options: ServerOptions | None = None) -> None:
    """Ask the scheduler to try parked commits again.

    Commits of the service config need no retry: every process tries them when it starts.

    Parameters
    ----------
    positions
        EPOCH/PARTITION/SEQUENCE of each commit, as `parked list` shows them. Default: all parked commits.
    """
    asked = uvloop.run(_retry(settings_of(options), [Position.parse(text) for text in positions]))
    say(
        with_program(f"trying {counted(asked, 'parked commit')} again; `runstream parked list` shows what is left")
        if asked
        else "nothing to retry"
    )


def skip_command(
    position: str, /, *, reason: str, service: OfService = "runs", options: ServerOptions | None = None
) -> None:
    """Skip a parked commit for good. This cannot be undone, even when a later version could read the commit.

    The decision is recorded in the log, and the commits of the same run or task that waited behind it are retried.

    Parameters
    ----------
    position
        EPOCH/PARTITION/SEQUENCE, as `parked list` shows it. It must be the first parked commit of its run or task.
    reason
        Reason; recorded in the log with your name.
    """
    if not reason.strip():
        raise BadRequestError("a reason is empty", code="reasonMissing", hint="say why with --reason")
    decided = uvloop.run(_skip(settings_of(options), service, Position.parse(position), reason))
    say(f"skipped the commit at {position} (recorded at {decided})")


def _list_skipped(decided: list[SkipDecision], output: Output) -> None:
    if output == "json":
        names = ("position", "subject", "skipped", "by", "at", "reason", "sha256")
        print_json([{**_values(one, *names), "aggregate_version": one.version_after} for one in decided])
    else:
        print_items(decided, _SKIPPED, "nothing was skipped")


def _values(one: ParkedCommit | SkipDecision, *names: str) -> dict[str, object]:
    """Return these values as JSON values."""
    return {name: getattr(one, name) for name in names} | {"position": str(one.position)}


async def _parked(settings: Settings, service: str) -> tuple[ParkedCommit, ...]:
    async with (
        reached(settings) as (complete, _),
        migrated_database(complete, _CLIENT) as database,
        database.snapshot() as transaction,
    ):
        return await list_parked(transaction, projection=service)


async def _retry(settings: Settings, positions: list[Position]) -> int:
    async with reached(settings) as (complete, _), migrated_database(complete, _CLIENT) as database:
        return await request_retry(database, positions)


async def _decided(settings: Settings, service: str) -> list[SkipDecision]:
    async with connected(settings, _CLIENT, service=service) as servers:
        return await list_skip_decisions(servers.log)


async def _find(settings: Settings, service: str, position: Position) -> FoundCommit:
    async with connected(settings, _CLIENT, service=service) as servers:
        return await find(servers.log, servers.database, position)


async def _skip(settings: Settings, service: str, position: Position, reason: str) -> Position:
    actor = f"user:{getpass.getuser()}@{socket.gethostname()}"
    async with connected(settings, _CLIENT, service=service) as servers:
        requested = await MaintenanceControl(servers.nats, servers.log.subjects.namespace).requested(service)
        if requested is not None and requested.enabled:
            raise BadRequestError(
                "the service is in maintenance: nothing is appended to its log",
                code="maintenance",
                hint=f"decide when maintenance has ended: runstream maintenance disable --service {service}",
            )
        return await skip_commit(
            servers.log, servers.database, position, actor=actor, reason=reason, at=datetime.now(UTC)
        )
