"""Signatures of snapshots: Ed25519 over the bytes of `manifest.json`, keys as PEM files.

openssl pkeyutl -verify -pubin -inkey key.pub.pem -rawin -in manifest.json -sigfile signature.ed25519
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from runstream.errors import BadRequestError, ConflictError
from runstream.snapshots.errors import SnapshotError

SIGNATURE_BYTES = 64
_HINT = "`runstream snapshot keygen FILE` makes a pair of keys"


class SigningKey:
    """A private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Read the private key of a PEM file. Raises BadRequestError."""
        try:
            key = load_pem_private_key(_content(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _not_a_key(path, "private") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise _not_a_key(path, "private")
        return cls(key)

    @property
    def public_key(self) -> str:
        """The public key that checks its signatures, as PEM."""
        return _pem(self._key.public_key())

    def sign(self, content: bytes) -> bytes:
        """Return the signature of the content."""
        return self._key.sign(content)


def make_keys(path: Path) -> Path:
    """Write a new private key to `path` (mode 600) and its public key beside it; return the path of the public key.

    Raises ConflictError when one of the files exists, BadRequestError when they cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.stem}.pub{path.suffix}")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for target, content, mode in ((path, private, 0o600), (public, _pem(key.public_key()).encode(), 0o644)):
        try:
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
        except FileExistsError as error:
            raise ConflictError(
                f"{target} is there already", code="keyExists", hint="choose another name: keys are not overwritten"
            ) from error
        except OSError as error:
            raise BadRequestError(f"{target} cannot be written: {error.strerror}", code="keyNotWritten") from error
    return public


def read_public_key(path: Path) -> str:
    """Read the public key of a PEM file, as PEM in one canonical form. Raises BadRequestError."""
    try:
        return _pem(_public(_content(path).decode()))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _not_a_key(path, "public") from error


def fingerprint(public_key: str) -> str:
    """Return the fingerprint of a key: `SHA256:` and the hash of the raw key."""
    raw = _public(public_key).public_bytes(Encoding.Raw, PublicFormat.Raw)
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")


def check_signature(part: str, public_key: str, content: bytes, signature: bytes) -> None:
    """Raise SnapshotError unless the key signed the content."""
    try:
        _public(public_key).verify(signature, content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SnapshotError(part, "the public key of its manifest cannot be read", code="wrongSignature") from error
    except InvalidSignature as error:
        raise SnapshotError(part, "the signature is wrong", code="wrongSignature") from error


def _public(pem: str) -> Ed25519PublicKey:
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("it is a key of another kind")  # noqa: TRY004  as everything else that is no such key
    return key


def _pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {error.strerror}", code="invalidKey", hint=_HINT) from error


def _not_a_key(path: Path, kind: str) -> BadRequestError:
    return BadRequestError(f"{path} is not the {kind} Ed25519 key of a PEM file", code="invalidKey", hint=_HINT)
