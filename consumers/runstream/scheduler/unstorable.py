"""The commits of one partition that Postgres cannot store: how the one to blame is found, and how it is tried again.

Postgres refuses a transaction, not a commit. So the batch is read again, commit by commit, and the one that is refused
alone is parked. What is known of that outlives the session, since each refusal ends one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Unstorable:
    """What is known of one partition's commits that cannot be stored."""

    reasons: dict[int, str] = field(default_factory=dict)
    """Of each sequence that is parked although it can be applied."""
    careful_until: int = 0
    """Commits up to this sequence are taken in one by one."""
    trying: tuple[int, ...] = ()
    """Parked commits that are part of the transaction of this moment, in order."""
    untried: set[int] = field(default_factory=set)
    """Parked commits that were refused together, and are to be tried one by one."""

    def blame(self, taken: int, reason: str) -> bool:
        """Note what a refusal says of the commits that were taken in up to `taken`; False when none is to blame.

        Parked commits that were tried come first: what was taken before them is stored already.
        """
        trying, self.trying = self.trying, ()
        if any(sequence not in self.reasons for sequence in trying):
            self.reasons |= dict.fromkeys(trying, reason)
            if len(trying) > 1:
                self.untried |= set(trying)
            return True
        if taken in self.reasons:
            return False
        if taken <= self.careful_until:
            self.reasons[taken] = reason
        else:
            self.careful_until = taken
        return True

    def try_again(self, sequences: Iterable[int]) -> None:
        """Try parked commits once more in one transaction, in order."""
        self.trying = tuple(sequences)
        self.untried.difference_update(self.trying)
        for sequence in self.trying:
            self.reasons.pop(sequence, None)

    def tried(self) -> None:
        """Note that what was tried is stored, or parked again."""
        self.trying = ()
