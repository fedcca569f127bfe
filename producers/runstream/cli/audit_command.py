"""`runstream audit`: who changed what, from the log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rich.text import Text

from runstream.cli.client_session import with_client
from runstream.cli.near_names import near_names, paths_near, user_names
from runstream.cli.output import Cell, Column, Output, print_json, print_table, timestamp
from runstream.client import AuditedEvent, AuditEntry, Client
from runstream.errors import BadRequestError
from runstream.runconfig.amounts import parse_duration

_COLUMNS = (
    Column("TIME"),
    Column("WHO", wraps=True),
    Column("WHAT", wraps=True),
    Column("OF", wraps=True),
    Column("ID", drop=1),
)


def audit(*, project: str = "", user: str = "", since: str = "", output: Output = "table") -> int:
    """Show who changed users, organizations, projects, secrets, variables and remote sources, the earliest first.

    An administrator sees all changes, an owner those of what the owner has. Texts of secrets are never shown.

    Parameters
    ----------
    project
        Only changes of this project, its secrets and its variables: its path, such as org/acme/web/site, or its id.
    user
        Only changes by the user of this name.
    since
        Only changes in the last 90m or 7d, or since a time such as 2026-11-23T09:30.
    """
    time = _since(since, datetime.now(UTC))

    async def work(client: Client) -> None:
        async with (
            near_names(project, "projectDoesNotExist", paths_near(client, project)),
            near_names(user, "userDoesNotExist", user_names(client)),
        ):
            found = [entry async for entry in client.audit.read(project=project, user=user, since=time)]
        if output == "json":
            print_json(found)
        else:
            print_table(_COLUMNS, [_cells(entry) for entry in found], "no changes")

    return with_client(work)


def _since(text: str, now: datetime) -> datetime | None:
    """Return the time that --since names. Raises BadRequestError."""
    if not text:
        return None
    try:
        if text.endswith("d") and text[:-1].isdigit():
            return now - timedelta(days=int(text[:-1]))
        return now - timedelta(microseconds=parse_duration(text) // 1000)
    except (ValueError, OverflowError):
        pass  # it may be a time
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise BadRequestError(
            f"--since {text[:80]!r} is neither a duration nor a time",
            code="invalidTime",
            hint="as in --since 7d, or --since 2026-11-23T09:30",
        ) from error


def _cells(entry: AuditEntry) -> tuple[Cell, ...]:
    who = entry.actor.removeprefix("user:") if entry.actor.startswith("user:") else Text(entry.actor, style="bold")
    what = "; ".join(_sentence(event) for event in entry.events)
    thing = {"secret": f"secret {entry.name} of ", "variable": f"variable {entry.name} of "}.get(entry.kind, "")
    of = f"{thing}{entry.path}" if entry.path else f"{entry.kind} {entry.name}"
    return timestamp(entry.time), who, what, of, entry.id


def _sentence(event: AuditedEvent) -> str:
    """Return an event's name in words, with its fields: `project visibility changed (visibility private)`."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in event.type).strip()
    fields = ", ".join(
        f"{name} {value if isinstance(value, str) else str(value).lower()}" for name, value in event.fields.items()
    )
    return f"{words} ({fields})" if fields else words
