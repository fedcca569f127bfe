"""Going back to another epoch, and deleting one: `runstream epochs activate|delete`.

Activating is the same switch as an import's, with rows that are made from the streams that are there.
"""

from __future__ import annotations

import structlog

from runstream.database.epochs import Epoch, current_epoch, list_epochs
from runstream.errors import BadRequestError, ConflictError, NotExistError
from runstream.importing.importer import Occupy
from runstream.importing.leftovers import remove_epoch, remove_leftovers
from runstream.importing.switching import ServicePlace, switch
from runstream.log import streams
from runstream.log.streams import FORMAT, LogDescription
from runstream.projections.rebuild import Place, Say, fill
from runstream.projections.rebuild_alone import alone
from runstream.projections.rebuild_schema import make_empty, make_indexes, schema_beside

log = structlog.get_logger()


async def activate(place: ServicePlace, number: int, occupy: Occupy, say: Say) -> int:
    """Serve this epoch instead of the current one, from where it was left. How many of its commits are parked.

    Raises NotExistError for no such epoch, BadRequestError for the current one or outside maintenance, ConflictError
    that names who is not parked, InternalError.
    """
    async with occupy(f"the activation of epoch {number}") as occupied, alone(place.database):
        await remove_leftovers(place)
        old = await current_epoch(place.database, place.service)
        new = await _ready(place, number)
        if new.current:
            raise BadRequestError(f"epoch {number} is the current one already", code="epochCurrent")
        description = LogDescription(new.number, new.partitions, FORMAT)
        await streams.check(place.nats, place.subjects(new.number), description, new.partitions)
        beside = schema_beside(place.database.schema)
        indexes = await make_empty(place.database.url, beside)
        ends = await streams.ends(place.nats, place.subjects(new.number), new.partitions)
        source = Place(place.nats_url, place.database.url, beside, place.subjects(new.number), new.partitions)
        filled = await fill(source, [end or 0 for end in ends], say)
        await make_indexes(place.database.url, beside, indexes)
        await switch(place, old, new, beside, occupied.require)
    log.info("An epoch was activated", action="epoch_activated", epoch=new.number, before=old.number)
    return sum(one.parked for one in filled)


async def delete(place: ServicePlace, number: int) -> Epoch:
    """Delete an epoch with its streams, for ever. Its archive in the object storage stays.

    Raises NotExistError for no such epoch, ConflictError for the current one.
    """
    async with alone(place.database):
        await remove_leftovers(place)
        epoch = await _ready(place, number)
        if epoch.current:
            raise ConflictError(
                f"epoch {number} is the current one",
                code="epochCurrent",
                hint="activate another one first: runstream epochs activate",
            )
        await remove_epoch(place, epoch)
    log.warning("An epoch was deleted", action="epoch_deleted", epoch=number)
    return epoch


async def _ready(place: ServicePlace, number: int) -> Epoch:
    for epoch in await list_epochs(place.database, place.service):
        if epoch.number == number and epoch.state == "ready":
            return epoch
    raise NotExistError(
        f"there is no epoch {number}",
        code="epochDoesNotExist",
        hint="`runstream epochs list` shows those that there are",
    )
