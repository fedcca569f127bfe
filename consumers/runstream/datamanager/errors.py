"""What is wrong with an archive, or with how it and the log fit together."""

from __future__ import annotations

from collections.abc import Mapping

from runstream.errors import ConflictError, InternalError, NotExistError

_BACKUP = "bring the objects below it back from a backup of the object storage"


class NoDataStatusError(NotExistError):
    """There is no data status, so nothing is known of an archived log."""

    def __init__(self, where: str, message: str = "", *, hint: str = "") -> None:
        super().__init__(
            message or f"there is no data status in {where}",
            code="noDataStatus",
            details={"archive": where},
            hint=hint or "is this the right object storage and the right namespace? A datamanager that runs writes one",
        )


class DamagedArchiveError(InternalError):
    """An object of the archive is not what it should be, or is missing."""

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"{path} of the archive: {problem}",
            code="damagedArchive",
            details={"path": path},
            hint=f"{_BACKUP}; while the log itself is whole, the archive can be deleted: it is made anew",
        )


class ContradictionError(ConflictError):
    """Log, database and archive do not belong together; nothing was changed."""

    def __init__(self, message: str, *, code: str, details: Mapping[str, object], hint: str) -> None:
        super().__init__(message, code=code, details=details, hint=hint)


class ArchiveFencedError(ConflictError):
    """Another datamanager has taken the archive over."""

    def __init__(self, generation: int) -> None:
        super().__init__(
            f"generation {generation} of the archive has ended: another datamanager has taken it over",
            code="fenced",
            details={"generation": generation},
        )
