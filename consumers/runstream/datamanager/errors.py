"""The errors of an archive, and of one that contradicts the log."""

from __future__ import annotations

from runstream.errors import ConflictError, InternalError, NotExistError

_BACKUP = "restore its objects from a backup of the object storage"


class NoDataStatusError(NotExistError):
    """There is no data status, so there is no archive to read."""

    def __init__(self, where: str, message: str = "", *, hint: str = "") -> None:
        super().__init__(
            message or f"there is no data status in {where}",
            code="noDataStatus",
            details={"archive": where},
            hint=hint
            or "is this the right object storage, and the right namespace? A running datamanager writes a data status",
        )


class DamagedArchiveError(InternalError):
    """An object of the archive is damaged or missing."""

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"{path} of the archive: {problem}",
            code="damagedArchive",
            details={"path": path},
            hint=f"{_BACKUP}; or, while the log itself is intact, delete the archive: the datamanager writes it again",
        )


class ContradictionError(ConflictError):
    """Log, database and archive do not belong together; nothing was changed."""


class ArchiveFencedError(ConflictError):
    """Another datamanager has taken over the archive."""

    def __init__(self, generation: int) -> None:
        super().__init__(
            f"generation {generation} of the archive has ended: another datamanager has taken over",
            code="fenced",
            details={"generation": generation},
        )
