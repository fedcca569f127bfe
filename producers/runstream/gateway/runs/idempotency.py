"""The same key, the same run: a request that was sent again creates nothing again.

The id of a run follows from the key, the group root and the place in the file, so whoever is second finds the run of
whoever was first, at any gateway, at any time, in any epoch. The run remembers a digest of its request, by which a key
that is used for something else is told: SHA-256 of what is stored in plain anyway; and of secrets one that nobody can
compare with a guess without the deployment's key. Where that key is not there any more, other secrets are not told.
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
"""What of a request nobody may find out from its digest."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key, and what it was sent with."""

    key: str
    plain: str
    """Digest of the request without its secrets."""
    secrets: bytes = field(repr=False)
    """Those; empty for none."""
    keyring: Keyring = field(repr=False)

    def run_id(self, group: str, index: int) -> str:
        """The id of the run at this place (from 0) of what is created with this key."""
        return derived_id("idempotent-run", group_root(group), self.key, str(index))

    @property
    def request(self) -> str:
        """What the run remembers of the request: `DIGEST`, or `DIGEST.KEY.DIGEST` where it has secrets."""
        keyed = self.keyring.digest(self.secrets) if self.secrets and self.keyring.ids else ()
        return ".".join((self.plain, *keyed))

    def require_same(self, request: str, run_id: str) -> None:
        """Raises ConflictError when the run was created by another request than this one."""
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
    """The key that came with a request of this content (JSON); None without. Raises BadRequestError."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not 0 < len(key) <= MAX_BYTES or not all(" " <= character <= "~" for character in key):
        raise BadRequestError(
            f"the idempotency key {key[:80]!r} is not one",
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
    """The same bytes whatever the order of fields."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
