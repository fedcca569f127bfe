"""What the client raises: what the service answered, or why there was no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class ClientError(Exception):
    """The service refused, failed, or could not be understood.

    `kind` is `not-exist`, `bad-request`, `unauthorized`, `forbidden`, `conflict`, `internal` or `remote` (or
    `connection`, where there was no answer); `code` names the case for machines; `message` is one sentence;
    `hint` says what to do about it; `chain` has the causes with file and line, where it was asked for.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        code: str = "",
        hint: str = "",
        details: Mapping[str, object] | None = None,
        chain: Sequence[str] = (),
        status: int = 0,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.code = code
        self.hint = hint
        self.details = dict(details or {})
        self.chain = tuple(chain)
        self.status = status
        """The HTTP status; 0 where there was no answer."""
        self.retry_after = retry_after
        """Seconds after which the service wants to be asked again; 0 where it says nothing."""

    def __str__(self) -> str:
        return self.message


class ConnectionFailedError(ClientError):
    """There was no answer, or it broke off."""

    def __init__(self, message: str, *, hint: str, code: str = "connectionFailed") -> None:
        super().__init__(message, kind="connection", code=code, hint=hint)
