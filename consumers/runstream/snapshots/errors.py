"""What is wrong with a snapshot, and where exactly."""

from __future__ import annotations

from collections.abc import Mapping

from runstream.errors import BadRequestError

_HINT = "take another copy of the file, or export again; `runstream snapshot verify` tells all that is wrong"


class SnapshotError(BadRequestError):
    """A snapshot, or a segment of the log, is not what it says it is.

    `part` names the file inside the snapshot, or the segment; `line` counts from 1, 0 is the whole part.
    """

    def __init__(
        self,
        part: str,
        problem: str,
        *,
        line: int = 0,
        aggregate: str = "",
        code: str = "damagedSnapshot",
        details: Mapping[str, object] | None = None,
        hint: str = _HINT,
    ) -> None:
        self.part, self.problem, self.line, self.aggregate = part, problem, line, aggregate
        place = f"{part}, line {line}" if line else part
        where = {"part": part, **({"line": line} if line else {}), **({"aggregate": aggregate} if aggregate else {})}
        super().__init__(f"{place}: {problem}", code=code, details={**where, **(details or {})}, hint=hint)
