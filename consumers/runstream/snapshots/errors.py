"""The error of a damaged snapshot, with the exact place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from runstream.errors import BadRequestError

WHOLE = "the file"
"""The `part` of an error that concerns the whole snapshot."""
_HINT = "take another copy of the file, or export again; `runstream snapshot verify` lists every problem"


class SnapshotError(BadRequestError):
    """A snapshot, or a segment of the log, is damaged.

    `part` names the file in the snapshot, or the segment; `line` counts from 1, 0 stands for the whole part.
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


@contextmanager
def in_folder(folder: str) -> Iterator[None]:
    """Make errors about a file in a folder of the snapshot name the folder."""
    try:
        yield
    except SnapshotError as error:
        if not folder or error.part == WHOLE:
            raise
        raise SnapshotError(
            folder + error.part,
            error.problem,
            line=error.line,
            aggregate=error.aggregate,
            code=error.code,
            hint=error.hint,
        ) from error


@contextmanager
def name_file_in_errors(file: Path) -> Iterator[None]:
    """Make errors about the whole snapshot name its file."""
    try:
        yield
    except SnapshotError as error:
        if error.part != WHOLE:
            raise
        raise SnapshotError(
            str(file), error.problem, code=error.code, details=error.details, hint=error.hint
        ) from error
