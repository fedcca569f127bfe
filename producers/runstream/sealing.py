"""Secrets are sealed before a run config is appended, and opened only where a task is about to use them.

AES-256-GCM with a random nonce. A key's id is derived from the key, so a key file cannot name one wrongly. The id is
authenticated, together with the place of the text. The first key of the file seals, all of them open: put a new key on
top, and keep old ones as long as runs that were sealed with them may be restarted.

A sealed text is bound to its place: the field, what its task does, and its sources. Copied to another field or task, or
in a task that was changed, it does not open. The digest of a place leaves out sealed texts, and the environment that a
restart may replace.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields, replace

from runstream.atomic_files import replace_file
from runstream.counting import counted
from runstream.errors import BadRequestError, InternalError
from runstream.events.run_config import RunConfig, RunConfigTask, Sealed, Text
from runstream.ids import content_hash
from runstream.repository_urls import split_url

KEY_BYTES = 32
_NONCE_BYTES = 12
_ID_CHARACTERS = 12
_BOUND = "2."
"""Prefix of texts that are bound to a place; base64 has no dot, so no text of an earlier version begins like it."""
T = TypeVar("T")
_PREFIXES = ("AGOLA_", "RUNSTREAM_")
_fields = cache(fields)
"""The fields of a struct, cached: finding them resolves all its annotations."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """A set of keys by id; the first one seals. An empty ring seals and opens nothing."""

    _keys: dict[str, AESGCM] = field(default_factory=dict, repr=False)
    _marks: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Keys for digests, derived from the others."""

    @classmethod
    def of(cls, keys: Iterable[bytes]) -> Keyring:
        """Return a ring of these keys, each of 32 bytes."""
        named = {key_id(key): key for key in keys}
        marks = {name: hashlib.sha256(b"runstream digest key" + key).digest() for name, key in named.items()}
        return cls({name: AESGCM(key) for name, key in named.items()}, marks)

    @classmethod
    def read(cls, path: Path) -> Keyring:
        """Read a file of keys, one a line in base64. Raises BadRequestError for an invalid file."""
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
        """The ids of the keys; the first one seals."""
        return tuple(self._keys)

    def seal(self, text: str, bound: str) -> Sealed:
        """Encrypt a text; only the same `bound` opens it. Raises InternalError without a key."""
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
        """Return the id of a key and a keyed digest of the content, which reveals nothing without the key.

        `key` is the id of the key to use; default: the one that seals. Raises KeyError for an unknown key, or none.
        """
        name = key or next(iter(self._marks), "")
        return name, hmac.new(self._marks[name], content, hashlib.sha256).hexdigest()

    def open(self, text: Text, bound: str) -> str:
        """Decrypt a text. Raises InternalError without its key, or if it was changed or is bound to another place.

        Texts that earlier versions sealed are not bound to a place.
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
    """Return the id of a key, which reveals nothing about it."""
    return hashlib.sha256(b"runstream secrets key" + key).hexdigest()[:_ID_CHARACTERS]


def make_key_file(path: Path) -> None:
    """Write a file with one new key that only its owner can read."""
    replace_file(path, base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")


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


def to_seal(text: str) -> Sealed:
    """Mark a secret for `seal_config`: its key is empty."""
    return Sealed("", text)


def seal_config(config: RunConfig, keyring: Keyring) -> RunConfig:
    """Seal the marked secrets of a run config, and the credentials in the URL of its repository.

    Raises InternalError when there is something to seal and no key.
    """
    config = replace(config, static_environment=_without_credentials(config.static_environment))
    static = _static(config)
    sealed = replace(
        config,
        static_environment=_sealed(config.static_environment, "static", keyring, lambda: static),
        tasks={name: _sealed(t, "task", keyring, partial(_about, config, t)) for name, t in config.tasks.items()},
    )
    return replace(sealed, environment=_sealed(config.environment, "environment", keyring, lambda: config.name))


def has_secrets(value: object) -> bool:
    """Return whether a value (a run config, or a part of one) has a sealed text."""
    if isinstance(value, Struct):
        return isinstance(value, Sealed) or any(has_secrets(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, Mapping):
        return any(map(has_secrets, value.values()))
    return isinstance(value, tuple) and any(map(has_secrets, value))


class OpenedSecrets:
    """The secrets of one task, opened on demand; `secrets` collects them for masking."""

    def __init__(self, config: RunConfig, task: RunConfigTask, keyring: Keyring) -> None:
        self._keyring = keyring
        self._about = {"static": lambda: _static(config), "environment": lambda: config.name}
        self._task = lambda: _about(config, task)
        self.secrets: set[str] = set()

    def all(self, texts: Mapping[str, Text], place: str) -> dict[str, str]:
        """Decrypt the texts of a place. Raises InternalError for one that was sealed for another place."""
        about = self._about.get(place, self._task)
        return {
            name: text if isinstance(text, str) else self._one(text, f"{place}.{name}", about)
            for name, text in texts.items()
        }

    def _one(self, text: Sealed, place: str, about: Callable[[], str]) -> str:
        plain = self._keyring.open(text, _bound(place, about()))
        self.secrets.add(plain)
        return plain


def _sealed(value: T, place: str, keyring: Keyring, about: Callable[[], str]) -> T:
    """Return the value with all marked secrets in it sealed."""
    sealed: Any = value
    if isinstance(value, Sealed):
        sealed = keyring.seal(value.value, _bound(place, about())) if not value.key else value
    elif isinstance(value, Struct):
        found = {name: getattr(value, name) for name in value.__struct_fields__}
        new = {name: _sealed(each, f"{place}.{name}", keyring, about) for name, each in found.items()}
        changed = {name: each for name, each in new.items() if each is not found[name]}
        sealed = replace(value, **changed) if changed else value
    elif isinstance(value, Mapping):
        entries = {name: _sealed(each, f"{place}.{name}", keyring, about) for name, each in value.items()}
        sealed = entries if any(entries[name] is not value[name] for name in entries) else value
    elif isinstance(value, tuple):
        items = tuple(_sealed(each, f"{place}.{at}", keyring, about) for at, each in enumerate(value))
        sealed = items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return sealed  # type: ignore[no-any-return]


def _bound(place: str, about: str) -> str:
    return f"{place} {about}"


def _static(config: RunConfig) -> str:
    return _digest([config.name, config.static_environment])


def _about(config: RunConfig, task: RunConfigTask) -> str:
    return _digest([config.name, config.static_environment, task])


def _digest(value: object) -> str:
    return content_hash(json.dumps(_plain(value), sort_keys=True).encode())


def _plain(value: object) -> object:
    """Return the value for a digest, without fields that have their default: adding a field changes no digest."""
    if isinstance(value, Sealed):
        return None
    if isinstance(value, Struct):
        return {
            one.name: _plain(getattr(value, one.name))
            for one in _fields(type(value))
            if getattr(value, one.name) != _default(one)
        }
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value


def _default(one: FieldInfo) -> object:
    return one.default_factory() if one.default_factory is not NODEFAULT else one.default


def _without_credentials(static: Mapping[str, Text]) -> Mapping[str, Text]:
    """Return the environment with the password or token of its repository's URL as separate texts, to be sealed."""
    found: dict[str, Text] = {}
    for prefix in _PREFIXES:
        url = static.get(f"{prefix}REPOSITORY_URL", "")
        if not isinstance(url, str) or "://" not in url:
            continue
        split = split_url(url)
        if split.is_secret:
            found[f"{prefix}REPOSITORY_URL"] = split.shown
            found |= {f"{prefix}GIT_USERNAME": to_seal(split.token)} if split.token else {}
            found[f"{prefix}GIT_PASSWORD"] = to_seal(split.password)
    return {**static, **found} if found else static
