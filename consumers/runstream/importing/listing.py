"""The epochs that there are, as commands and the API show them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from runstream.database.epochs import EpochState, list_epochs
from runstream.importing.switching import ServicePlace
from runstream.log import streams


@dataclass(frozen=True, slots=True)
class ListedEpoch:
    """One epoch."""

    epoch: int
    current: bool
    state: EpochState
    partitions: int
    commits: int
    created: datetime
    origin: str
    """Where its commits came from, for people; empty for those that were made here."""


async def listed_epochs(place: ServicePlace) -> list[ListedEpoch]:
    """All epochs that are not deleted, in order."""
    found = []
    for epoch in await list_epochs(place.database, place.service):
        if epoch.state != "deleted":
            ends = await streams.ends(place.nats, place.subjects(epoch.number), epoch.partitions)
            commits = sum(end or 0 for end in ends)
            listed = (epoch.number, epoch.current, epoch.state, epoch.partitions, commits, epoch.created, epoch.origin)
            found.append(ListedEpoch(*listed))
    return found
