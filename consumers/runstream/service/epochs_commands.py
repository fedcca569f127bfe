"""`runstream epochs`: which logs there are, which one is served, going back to one, deleting one."""

from __future__ import annotations

from typing import Annotated

import uvloop
from cyclopts import Parameter

from runstream.cli.connection import global_options
from runstream.cli.output import Column, Output, print_json, print_table, say, timestamp
from runstream.counting import counted
from runstream.database.epochs import Epoch
from runstream.errors import BadRequestError
from runstream.importing.epochs import ListedEpoch, activate, delete, listed_epochs
from runstream.service.importing_place import importing_place
from runstream.service.progress import steps
from runstream.service.reaching import reached
from runstream.service.serve_options import ServerOptions, settings_of
from runstream.settings import Settings

_COLUMNS = (
    Column("epoch"),
    Column("state"),
    Column("partitions", drop=1),
    Column("commits"),
    Column("made"),
    Column("from", wraps=True),
)


def list_command(*, output: Output = "table", options: ServerOptions | None = None) -> None:
    """List the epochs of the log: the one that is served, and those that imports have left.

    Parameters
    ----------
    output
        A table, or JSON for programs.
    """
    epochs = uvloop.run(_list(_settings(options)))
    if output == "json":
        print_json(epochs)
        return
    rows = [
        (
            str(one.epoch),
            "current" if one.current else one.state,
            str(one.partitions),
            f"{one.commits:,}",
            timestamp(one.created),
            one.origin or "begun here",
        )
        for one in epochs
    ]
    print_table(_COLUMNS, rows, "there is no epoch")


def activate_command(epoch: int, /, *, options: ServerOptions | None = None) -> None:
    """Serve another epoch, from where it was left. The service has to be in maintenance, with every instance parked.

    Parameters
    ----------
    epoch
        Its number, as `runstream epochs list` shows it.
    """
    parked = uvloop.run(_activate(_settings(options), epoch))
    told = f"; {counted(parked, 'commit')} could not be applied, see `runstream parked list`" if parked else ""
    say(f"epoch {epoch} is the current one{told}\nnext       runstream maintenance disable")


def delete_command(
    epoch: int, /, *, yes: Annotated[bool, Parameter(negative="")] = False, options: ServerOptions | None = None
) -> None:
    """Delete an epoch that is not the current one, with all of its commits, for ever.

    Parameters
    ----------
    epoch
        Its number, as `runstream epochs list` shows it.
    yes
        That this is meant.
    """
    if not yes:
        raise BadRequestError(
            f"all commits of epoch {epoch} would be deleted, and nothing brings them back",
            code="notConfirmed",
            hint="say --yes if this is meant; `runstream epochs list` shows what it is",
        )
    gone = uvloop.run(_delete(_settings(options), epoch))
    say(f"epoch {gone.number} is deleted; its archive in the object storage, if it has one, stays")


def _settings(options: ServerOptions | None) -> Settings:
    return settings_of(options or ServerOptions(), global_options())


async def _list(settings: Settings) -> list[ListedEpoch]:
    async with reached(settings) as (complete, _), importing_place(complete) as (place, _):
        return await listed_epochs(place)


async def _activate(settings: Settings, epoch: int) -> int:
    async with reached(settings) as (complete, _), importing_place(complete) as (place, occupy):
        with steps() as tell:
            return await activate(place, epoch, occupy, tell)


async def _delete(settings: Settings, epoch: int) -> Epoch:
    async with reached(settings) as (complete, _), importing_place(complete) as (place, _):
        return await delete(place, epoch)
