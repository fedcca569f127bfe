"""How an event of an earlier schema version becomes today's: pure steps from dict to dicts, one version a step.

An upcaster takes the event as it was written (with its `type` and `version`) and returns the events that say the
same one step later: usually one, of the next version; none when it no longer means anything; several when it was
split. A released version stays here for ever, so that the log stays readable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

EventData: TypeAlias = dict[str, object]
Upcaster: TypeAlias = Callable[[EventData], list[EventData]]
Upcasters: TypeAlias = Mapping[tuple[str, int], Upcaster]

UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""By the type and version that they read. None yet: nothing that was released has changed."""


def upcast(event: EventData, upcasters: Upcasters = UPCASTERS) -> Iterator[EventData]:
    """The event as the newest steps say it, in order; as it is when no step reads it."""
    step = _step(event, upcasters)
    if step is None:
        yield event
        return
    for later in step(event):
        yield from upcast(later, upcasters)


def _step(event: EventData, upcasters: Upcasters) -> Upcaster | None:
    match event:
        case {"type": str(kind), "version": int(version)}:
            return upcasters.get((kind, version))
        case _:
            return None
