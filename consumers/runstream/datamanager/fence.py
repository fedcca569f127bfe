"""What keeps two datamanagers from changing one archive: a number that only grows.

Each one that takes the archive over gets a higher generation, and writes its data status under that name. After each
write it asks whether its generation is still the last one. If so, whoever comes later takes a higher one after that
moment and reads what was written. Only then is deleted what the data status does not name any more.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from runstream import tables
from runstream.database.database import Database
from runstream.database.transaction import Transaction


class Fence(Protocol):
    """Gives out generations."""

    async def take(self, known: int) -> int:
        """A generation that is higher than every one given out, and than `known`. Raises InternalError."""
        ...

    async def holds(self, generation: int) -> bool:
        """Whether no higher one was given out. Raises InternalError."""
        ...

    async def last(self) -> int:
        """The last one that was given out; 0 for none. Raises InternalError."""
        ...


class PostgresFence:
    """Generations as a row in the database."""

    def __init__(self, database: Database, service: str, epoch: int) -> None:
        self._database = database
        self._service = service
        self._epoch = epoch

    async def take(self, known: int) -> int:
        """The next generation (see the protocol)."""
        archives = tables.archives
        first = insert(archives).values(service=self._service, epoch=self._epoch, generation=known + 1)
        higher = first.on_conflict_do_update(
            index_elements=[archives.c.service, archives.c.epoch],
            set_={"generation": func.greatest(archives.c.generation, known) + 1},
        ).returning(archives.c.generation)

        async def work(transaction: Transaction) -> int:
            row = await transaction.first(higher)
            return int(row["generation"]) if row is not None else 0

        return await self._database.transaction(work)

    async def holds(self, generation: int) -> bool:
        """Whether this is the last generation that was given out."""
        return await self.last() == generation

    async def last(self) -> int:
        """The last generation that was given out; 0 for none."""
        archives = tables.archives.c
        wanted = select(archives.generation).where(archives.service == self._service, archives.epoch == self._epoch)
        async with self._database.snapshot() as transaction:
            row = await transaction.first(wanted)
        return int(row["generation"]) if row is not None else 0
