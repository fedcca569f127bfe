"""The error of a call to a git host."""

from __future__ import annotations

from runstream.errors import Kind, RemoteError

KIND_OF_STATUS = {401: Kind.UNAUTHORIZED, 403: Kind.FORBIDDEN, 404: Kind.NOT_EXIST, 409: Kind.CONFLICT}


class HostError(RemoteError):
    """A call to a git host failed.

    `status` is that of the answer, 0 without one. `retry_after` is in seconds, 0 where the host names no time.
    """

    def __init__(
        self, message: str, *, code: str, status: int = 0, retry_after: float = 0.0, sent: bool = True, hint: str = ""
    ) -> None:
        refused = Kind.BAD_REQUEST if 400 <= status < 500 and status != 429 else Kind.INTERNAL
        kind = KIND_OF_STATUS.get(status, refused)
        super().__init__(message, remote_kind=kind, code=code, details={"status": status} if status else {}, hint=hint)
        self.status = status
        self.retry_after = retry_after
        self.sent = sent
        """False if the host has certainly not seen the request."""

    @property
    def passing(self) -> bool:
        """True if the same call may succeed later."""
        return self.code in ("hostLimited", "hostUnreachable", "hostTimeout", "hostFailed")


def missing(error: HostError) -> bool:
    """Return whether the host does not have what the call names."""
    return error.code == "hostObjectDoesNotExist"
