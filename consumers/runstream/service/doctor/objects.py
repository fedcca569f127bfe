"""Whether the object storage works: a small object is written, found, read and deleted."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator

from runstream.errors import InternalError
from runstream.objects import BytesSource, ObjectStorage
from runstream.objects.open import open_objects
from runstream.service.doctor.finding import Finding
from runstream.settings import Settings

_PROBES = "probes/"


async def object_storage(settings: Settings) -> AsyncIterator[Finding]:
    """What was found at the object storage of the settings. Nothing is left in it."""
    storage = await open_objects(settings, make=False)
    began = time.perf_counter()
    await _probe(storage)
    took = time.perf_counter() - began
    where = settings.objects_url or settings.objects_path
    yield Finding("object storage", "ok", f"{where}: wrote, listed, read and deleted a probe in {took * 1000:.0f} ms")


async def _probe(storage: ObjectStorage) -> None:
    path, content = f"{_PROBES}{secrets.token_hex(8)}", secrets.token_bytes(64)
    await storage.write(path, BytesSource(content), size=len(content), persist=True)
    try:
        listed = [found.path async for found in storage.list(path)]
        async with await storage.read(path) as stored:
            read = await stored.read(0, stored.size)
    finally:
        await storage.delete(path)
    if listed != [path] or read != content:
        raise InternalError(
            "the object storage does not give back what was written",
            code="objectsUnfaithful",
            hint="is something between us and it that caches or changes what passes?",
        )
