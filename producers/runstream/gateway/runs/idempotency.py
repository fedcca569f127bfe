"""Idempotency keys: a request that is sent again with its key creates nothing again.

The id of a run is derived from the key, the group root and the run's place in the file, so a second request finds the
run of the first, at any gateway, at any time, in any epoch. The run stores a digest of its request, which detects a key
that is used for another request: SHA-256 of what is stored in plain anyway, and for secrets a digest that needs the
deployment's key, so that it does not confirm guesses. Once that key is gone, other secrets go undetected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import orjson
from starlette.requests import Request

from runstream.errors import BadRequestError, ConflictError
from runstream.ids import content_hash, derived_id
from runstream.sealing import Keyring
from runstream.subjects import group_root

HEADER = "Idempotency-Key"
MAX_BYTES = 255
PRIVATE_FIELD = "secret_files"
"""The field of a request whose content its digest must not confirm."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """An idempotency key and the request that it came with."""

    key: str
    plain: str
    """Digest of the request without its secrets."""
    secrets: bytes = field(repr=False)
    """The request's secrets; empty for none."""
    keyring: Keyring = field(repr=False)

    def run_id(self, group: str, index: int) -> str:
        """Return the id of the run at this place (from 0) of those that this key creates."""
        return derived_id("idempotent-run", group_root(group), self.key, str(index))

    @property
    def request(self) -> str:
        """The digest that the run stores: `DIGEST`, or `DIGEST.KEY.DIGEST` for a request with secrets."""
        keyed = self.keyring.digest(self.secrets) if self.secrets and self.keyring.ids else ()
        return ".".join((self.plain, *keyed))

    def require_same(self, request: str, run_id: str) -> None:
        """Raise ConflictError when another request than this one created the run."""
        if not self._is_same(*request.split(".")):
            raise ConflictError(
                f"the idempotency key {self.key!r} was used for another request, which created run {run_id}",
                code="idempotencyKeyReused",
                details={"run": run_id},
                hint="use a new key for each new request, and the same key only to send the same request again",
            )

    def _is_same(self, plain: str, key: str = "", digest: str = "") -> bool:
        return plain == self.plain and (
            key not in self.keyring.ids or self.keyring.digest(self.secrets, key) == (key, digest)
        )


def idempotency_key(request: Request, content: bytes, keyring: Keyring) -> IdempotencyKey | None:
    """Return the key of a request with this content (JSON); None without one. Raises BadRequestError."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not 0 < len(key) <= MAX_BYTES or not all(" " <= character <= "~" for character in key):
        raise BadRequestError(
            f"the idempotency key {key[:80]!r} is not valid",
            code="invalidIdempotencyKey",
            hint=f"use 1 to {MAX_BYTES} printable characters of ASCII, a UUID for example",
        )
    fields = cast("dict[str, object]", orjson.loads(content))
    nested = fields.get("fresh")
    secrets = [part.pop(PRIVATE_FIELD, None) for part in (fields, nested) if isinstance(part, dict)]
    there = any(secrets)
    plain = content_hash(_canonical([request.url.path, fields, there]))
    return IdempotencyKey(key, plain, _canonical(secrets) if there else b"", keyring)


def _canonical(value: object) -> bytes:
    """Encode a value so that the order of fields does not matter."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
