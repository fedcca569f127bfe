"""The event by which a user skips a commit that cannot be applied."""

from __future__ import annotations

from runstream.events.event import DomainEvent


class CommitSkipped(DomainEvent, frozen=True):
    """The commit's actor skipped a parked commit, which will never be applied."""

    sha256: str
    """SHA-256 of the skipped commit: of its subject after the partition, a line feed, and its decompressed body."""
    version_before: int
    """The version of the skipped commit's aggregate before it; 0 if no commit of it was applied or skipped."""
    version_after: int
    """The version of the aggregate after it: the next commit has one more."""
    position: str
    """Position of the skipped commit at that time (EPOCH/PARTITION/SEQUENCE), for people: an import may have moved
    it."""
    reason: str
    """Why, for people."""
