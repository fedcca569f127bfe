"""Imports as the gateway serves them: the file is taken in whole before anything else happens."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runstream.errors import InternalError
from runstream.ids import new_id
from runstream.importing.importer import Imported, Occupy, import_snapshot, verify_file, would_import
from runstream.importing.listing import ListedEpoch, listed_epochs
from runstream.importing.switching import ServicePlace
from runstream.objects.port import ObjectStorage
from runstream.projections.rebuild import Say

_ROOM_BYTES = 256 << 20
"""Left on the disk by the file of an import: a service whose log cannot grow is none."""


@dataclass(slots=True)
class ServedImports:
    """Imports of one service (see `runstream.gateway.routes.maintenance.Imports`)."""

    place: ServicePlace
    occupy: Occupy
    require_parked: Callable[[], Awaitable[None]]
    """Raises what `occupy` would raise, before a large file is sent for nothing."""
    storage: ObjectStorage
    spool: Path
    """The folder in which files are kept while they are imported; nothing else is in it."""
    trusted_keys: Sequence[str] = ()
    """Files of the keys with one of which a snapshot has to be signed; none: with any, or not at all."""

    def __post_init__(self) -> None:
        if self.spool.is_dir():
            for left in self.spool.iterdir():
                left.unlink()

    async def run(self, content: AsyncIterator[bytes], name: str, say: Say, *, dry_run: bool) -> Imported:
        """Import what is sent, or say what that would change."""
        await self.require_parked()
        with self._spooled() as path:
            await _take_in(content, path)
            say("verifying", 0, 0)
            snapshot = await asyncio.to_thread(verify_file, path, "", say, name, self.trusted_keys)
            if dry_run:
                return await would_import(self.place, snapshot)
            return await import_snapshot(self.place, snapshot, self.occupy, self.storage, say)

    async def epochs(self) -> list[ListedEpoch]:
        """All epochs that are not deleted."""
        return await listed_epochs(self.place)

    @contextmanager
    def _spooled(self) -> Iterator[Path]:
        self.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.spool / new_id()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _write(file: BinaryIO, chunk: bytes) -> None:
    """Write, as long as that leaves the service room for its log."""
    if shutil.disk_usage(file.name).free < _ROOM_BYTES + len(chunk):
        raise OSError(errno.ENOSPC, f"less than {_ROOM_BYTES >> 20} MiB would be left for the service")
    file.write(chunk)


async def _take_in(content: AsyncIterator[bytes], path: Path) -> None:
    try:
        with path.open("wb") as file:
            async for chunk in content:
                await asyncio.to_thread(_write, file, chunk)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InternalError(
            f"the snapshot cannot be kept while it is imported: {error.strerror or error}",
            code="diskFull" if full else "spoolNotWritable",
            hint="free some space in the data directory of the gateway; nothing was changed",
        ) from error
