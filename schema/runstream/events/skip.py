"""What can happen to a commit that cannot be applied: somebody decides that it never is."""

from __future__ import annotations

from runstream.events.event import Event


class CommitSkipped(Event, frozen=True):
    """The commit's actor decided that another commit, which is parked, is never applied."""

    sha256: str
    """Of the skipped commit: of its subject behind the partition, a line feed, and its body, decompressed."""
    version_before: int
    """The version that the skipped commit's aggregate had before it; 0 when nothing of it was applied or skipped."""
    version_after: int
    """The version that it has after it: its next commit has one more."""
    position: str
    """Where the skipped commit was then (EPOCH/PARTITION/SEQUENCE), for people: an import may have moved it."""
    reason: str
    """Why, for people."""


SkipEvent = CommitSkipped
SKIP_EVENTS: tuple[type[Event], ...] = (CommitSkipped,)
