"""Secret texts are sealed before they are appended, and opened where a task is about to use them.

AES-256-GCM with a random nonce. The key's id is derived from the key, so a file of keys cannot name one wrongly. It is
authenticated, together with what the text is for. The first key of the file seals, all of them open: a new key is put
on top, and old ones stay as long as runs that were sealed with them may run again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runstream.counting import counted
from runstream.embedded.files import write_private
from runstream.errors import BadRequestError, InternalError
from runstream.events.run_config import Sealed, Text

KEY_BYTES = 32
_NONCE_BYTES = 12
_ID_CHARACTERS = 12
_BOUND = "2."
"""Before what is bound; base64 has no dot, so nothing from before looks like it."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """Keys by their ids; the first one seals. An empty one seals and opens nothing."""

    _keys: dict[str, AESGCM] = field(default_factory=dict, repr=False)
    _marks: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Keys for digests, derived from the others."""

    @classmethod
    def of(cls, keys: Iterable[bytes]) -> Keyring:
        """A ring of these keys, each of 32 bytes."""
        named = {key_id(key): key for key in keys}
        marks = {name: hashlib.sha256(b"runstream digest key" + key).digest() for name, key in named.items()}
        return cls({name: AESGCM(key) for name, key in named.items()}, marks)

    @classmethod
    def read(cls, path: Path) -> Keyring:
        """The keys of a file: one a line, in base64. Raises BadRequestError that says what is wrong with it."""
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise _bad_file(path, f"cannot be read: {error}") from error
        texts = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not texts:
            raise _bad_file(path, "has no key")
        return cls.of(_key(text, path) for text in texts)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys, the one that seals first."""
        return tuple(self._keys)

    def seal(self, text: str, bound: str) -> Sealed:
        """The text, encrypted, to be opened with the same `bound` alone. Raises InternalError when there is no key."""
        key = next(iter(self._keys), None)
        if key is None:
            raise InternalError(
                "this process has no key to seal secrets with",
                code="noSecretsKey",
                hint="give it a file of keys with --secrets-key-file",
            )
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys[key].encrypt(nonce, text.encode(), _authenticated(key, bound))
        return Sealed(key, _BOUND + base64.b64encode(nonce + sealed).decode())

    def digest(self, content: bytes, key: str = "") -> tuple[str, str]:
        """The id of a key, and a digest of the content that says nothing to whoever does not have the key.

        It is the key of that id, or the one that seals. Raises KeyError for one that is not there, or no key at all.
        """
        name = key or next(iter(self._marks), "")
        return name, hmac.new(self._marks[name], content, hashlib.sha256).hexdigest()

    def open(self, text: Text, bound: str) -> str:
        """The text in plain. Raises InternalError without its key, and for one that was changed or is bound elsewhere.

        What earlier versions sealed is bound to nothing.
        """
        if isinstance(text, str):
            return text
        cipher = self._keys.get(text.key)
        if cipher is None:
            raise InternalError(
                f"a secret is sealed with key {text.key}, which this process does not have",
                code="secretsKeyMissing",
                details={"key": text.key, "known": [*self._keys]},
                hint="give all gateways and executors the same --secrets-key-file, with old keys below the new one",
            )
        try:
            value = text.value.removeprefix(_BOUND)
            about = _authenticated(text.key, bound) if value != text.value else text.key.encode()
            content = base64.b64decode(value, validate=True)
            return cipher.decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], about).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise InternalError(
                f"a secret that is sealed with key {text.key} was changed, or copied from another place",
                code="secretDamaged",
                hint="create the run again",
            ) from error


def _authenticated(key: str, bound: str) -> bytes:
    return f"{key}\n{bound}".encode()


def key_id(key: bytes) -> str:
    """What names a key; it says nothing about the key."""
    return hashlib.sha256(b"runstream secrets key" + key).hexdigest()[:_ID_CHARACTERS]


def make_key_file(path: Path) -> None:
    """Write a file with one new key, readable by its owner alone."""
    write_private(path, base64.b64encode(os.urandom(KEY_BYTES)).decode() + "\n")


def _key(text: str, path: Path) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise _bad_file(path, "has a line that is not base64") from error
    if len(key) != KEY_BYTES:
        raise _bad_file(path, f"has a key of {counted(len(key), 'byte')}; a key has {KEY_BYTES}")
    return key


def _bad_file(path: Path, problem: str) -> BadRequestError:
    return BadRequestError(
        f"the file of secrets keys {path} {problem}",
        code="invalidSecretsKeyFile",
        hint="it has one key a line, 32 bytes in base64; `head -c 32 /dev/urandom | base64` makes one",
    )
