"""Streams that lose messages, as a full disk makes NATS lose them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nats.aio.client import Client

from runstream.jetstream.api import request
from runstream.subjects import Subjects


@dataclass(frozen=True, slots=True)
class LosingStream:
    """The stream of one partition, which allows deletion."""

    nc: Client
    name: str

    async def lose(self, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            await request(self.nc, f"STREAM.MSG.DELETE.{self.name}", {"seq": sequence})

    async def lose_all_up_to(self, sequence: int) -> None:
        await request(self.nc, f"STREAM.PURGE.{self.name}", {"seq": sequence + 1})


@asynccontextmanager
async def losing(nc: Client, subjects: Subjects, partition: int) -> AsyncIterator[LosingStream]:
    """Make a partition's stream anew, empty, so that it allows deletion; it denies deletion again at the end."""
    name = subjects.stream(partition)
    config = (await request(nc, f"STREAM.INFO.{name}"))["config"]
    await request(nc, f"STREAM.DELETE.{name}")
    await request(nc, f"STREAM.CREATE.{name}", config | {"deny_delete": False, "deny_purge": False})
    yield LosingStream(nc, name)
    await request(nc, f"STREAM.UPDATE.{name}", config)
