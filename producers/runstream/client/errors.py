"""Errors of the client: the service's own, and those of the connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class ClientError(Exception):
    """An error of the service, or a response that cannot be understood.

    `kind` is `not-exist`, `bad-request`, `unauthorized`, `forbidden`, `conflict`, `internal` or `remote` (or
    `connection`, where there was no answer); `code` names the case for machines; `message` is one sentence;
    `hint` says what to do about it; `chain` has the causes with file and line, with detailed errors alone.
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
        """The HTTP status; 0 without a response."""
        self.retry_after = retry_after
        """Seconds that the service asks to wait before a retry; 0 when it names none."""

    def __str__(self) -> str:
        return self.message


class ConnectionFailedError(ClientError):
    """An error of the connection: no response, or one that broke off."""

    def __init__(self, message: str, *, hint: str, code: str = "connectionFailed") -> None:
        super().__init__(message, kind="connection", code=code, hint=hint)
