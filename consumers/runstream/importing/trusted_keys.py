"""Which keys have to sign a snapshot that is imported.

A gateway announces its setting `import_trusted_keys` in the key `trusted_keys.<service>` of `<namespace>_control`. An
import from a shell does not know the gateway's settings and reads the announcement, also while the gateway is stopped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
from nats.aio.client import Client

from runstream.errors import InternalError
from runstream.log.streams import read_key, write_key
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.manifest import SIGNATURE
from runstream.snapshots.signing import fingerprint, read_public_key


def fingerprints(files: Sequence[str]) -> frozenset[str]:
    """Return the fingerprints of the public keys in PEM files. Raises BadRequestError for one that cannot be read."""
    return frozenset(fingerprint(read_public_key(Path(file).expanduser())) for file in files)


def require_signer(signer: str, trusted: Collection[str]) -> None:
    """Raise SnapshotError unless the snapshot's signer is a trusted one; without trusted keys, accept any."""
    if not trusted or signer in trusted:
        return
    signed = f"it is signed with {signer}" if signer else "it is not signed"
    raise SnapshotError(
        SIGNATURE,
        f"{signed}, and this service takes only what is signed with {' or '.join(sorted(trusted))}",
        code="notTrusted",
        hint="sign it when you export (--sign), or add the key's file to import_trusted_keys",
    )


async def announce_trusted_keys(nc: Client, namespace: str, service: str, trusted: Collection[str]) -> None:
    """Store the keys that imports require, or that they require none. Raises UnavailableError."""
    key, value = _key(service), msgspec.json.encode(sorted(trusted)) if trusted else b""
    if (await read_key(nc, namespace, key)).data != value:
        await write_key(nc, namespace, key, value)


async def announced_trusted_keys(nc: Client, namespace: str, service: str) -> Collection[str]:
    """Return the keys that imports require; empty for none. Raises InternalError for a damaged value."""
    value = (await read_key(nc, namespace, _key(service))).data
    try:
        return msgspec.json.decode(value, type=frozenset[str]) if value else frozenset()
    except ValueError as error:
        raise InternalError(
            f"the key {_key(service)} of the bucket {namespace}_control cannot be read: {error}",
            code="trustedKeysUnreadable",
            hint="start a gateway: it writes its setting import_trusted_keys there",
        ) from error


def _key(service: str) -> str:
    return f"trusted_keys.{service}"
