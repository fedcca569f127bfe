"""What objects say about references."""

from __future__ import annotations

from runstream.objects.port import ObjectStorage
from runstream.objects.references import Shared


async def referring_runs(objects: ObjectStorage, shared: Shared) -> list[str]:
    """Return the ids of the runs that refer to the data."""
    start = shared.references
    return [found.path.removeprefix(start) async for found in objects.list(start)]
