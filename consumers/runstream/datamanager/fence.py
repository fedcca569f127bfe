"""The fence between two datamanagers of one archive: generations, numbers that only grow.

A datamanager that takes over the archive gets a higher generation and writes its data status under that number. After
each write it checks that its generation is still the last one. If it is, any successor takes its generation later, and
so reads this data status. Only after that check may the datamanager delete objects that the data status dropped.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from runstream import tables
from runstream.database.database import Database
from runstream.database.transaction import Transaction


class Fence(Protocol):
    """The source of generations."""

    async def take(self, known: int) -> int:
        """Take a generation above every earlier one, and above `known`. Raises InternalError."""

    async def holds(self, generation: int) -> bool:
        """Return whether no higher generation was taken. Raises InternalError."""

    async def last(self) -> int:
        """Return the last generation taken; 0 for none. Raises InternalError."""


class PostgresFence:
    """A source of generations in a row of the database."""

    def __init__(self, database: Database, service: str, epoch: int) -> None:
        self._database = database
        self._service = service
        self._epoch = epoch

    async def take(self, known: int) -> int:
        """Take a generation above every earlier one, and above `known`."""
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
        """Return whether this is the last generation taken."""
        return await self.last() == generation

    async def last(self) -> int:
        """Return the last generation taken; 0 for none."""
        archives = tables.archives.c
        wanted = select(archives.generation).where(archives.service == self._service, archives.epoch == self._epoch)
        async with self._database.snapshot() as transaction:
            row = await transaction.first(wanted)
        return int(row["generation"]) if row is not None else 0
