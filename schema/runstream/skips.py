"""Skipped commits: commits that are never applied, by a user's decision (`CommitSkipped`).

A skipped commit is identified by its content, so that an import may move it. A fold of the log reads the decisions
first, and treats a skipped commit as one without events: it changes no state, but keeps its place, and sets its
aggregate to the recorded version. So every fold gives the same state, whether it can read the commit or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from runstream.codec import ID_HEADER, Message
from runstream.commits import DecodedCommit, StoredCommit
from runstream.errors import BadRequestError
from runstream.events.skip import CommitSkipped
from runstream.glance import body_of
from runstream.subjects import Address, Subjects, aggregate_of, parse_subject, skip_address


@dataclass(slots=True)
class Skips:
    """The decisions to skip commits in a log, or in a part of it."""

    _decided: dict[str, dict[str, CommitSkipped]] = field(default_factory=dict)
    """The decisions for each aggregate (`run/<id>`), by the hash of the commit.

    For a subject that is not an aggregate, the key is the part of the subject after the partition.
    """

    @classmethod
    def of(cls, commits: Iterable[StoredCommit]) -> Skips:
        """Return the decisions in these commits."""
        skips = cls()
        for stored in commits:
            skips.take(stored)
        return skips

    def take(self, stored: StoredCommit) -> None:
        """Add the decision of a commit, if it is one."""
        for event in stored.commit.events:
            if isinstance(event, CommitSkipped):
                about = _about(f"-.-.-.{stored.commit.address.partition}.{stored.commit.address.id}")
                self._decided.setdefault(about, {})[event.sha256] = event

    def merge(self, others: Skips) -> None:
        """Learn of what others know."""
        for about, decided in others._decided.items():
            self._decided.setdefault(about, {}).update(decided)

    def find(self, message: Message) -> StoredCommit | None:
        """Return the message as a commit without events if it is skipped, otherwise None."""
        if not self._decided:
            return None
        decided = self._decided.get(_about(message.subject))
        event = decided.get(hash_of(message)) if decided else None
        return None if event is None else _without_events(message, event.version_after)

    def begun(self, aggregate: str) -> int:
        """Return the version of an aggregate without applied commits: that of the commits skipped at its beginning."""
        steps = [(event.version_before, event.version_after) for event in self._decided.get(aggregate, {}).values()]
        version = 0
        for before, after in sorted(steps):
            version = after if before == version else version
        return version


def hash_of(message: Message) -> str:
    """Return the hash that identifies a commit, at any position in any log."""
    return hashlib.sha256(message.subject.split(".", 4)[-1].encode() + b"\n" + body_of(message)).hexdigest()


def skipped_aggregate(subjects: Subjects, address: Address) -> str:
    """Return the aggregate whose commits the decisions at this address skip, by its name in the list of parked
    commits."""
    return aggregate_of(f"{subjects.prefix(address.partition)}.{address.id}")


def version_after(before: int, following: int | None) -> int:
    """Return the version of an aggregate after a skipped commit, given the version `before`.

    It is one less than the version of the next commit (`following`), if that has one, so that this fits. Otherwise the
    skipped commit increases the version by one.
    """
    return following - 1 if following is not None and following > before else before + 1


def _about(subject: str) -> str:
    """Return the aggregate of a subject, or the part after the partition if it is not an aggregate's subject."""
    try:
        return parse_subject(subject).aggregate
    except BadRequestError:
        return subject.split(".", 4)[-1]


def _without_events(message: Message, version: int) -> StoredCommit:
    try:
        address = parse_subject(message.subject)
    except BadRequestError:  # There is no such aggregate: only the position changes.
        address = skip_address(message.position.partition, message.subject)
    commit_id = message.headers.get(ID_HEADER, "") if message.headers else ""
    commit = DecodedCommit(commit_id, address, version, message.stored_at, actor="", cause="", events=())
    return StoredCommit(commit, message.position, message.stored_at)
