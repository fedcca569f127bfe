"""The secrets of a run config: sealed where they stand when it is created, opened only there.

A sealed text is bound to its place: the field, what its task does and from which sources. Copied to another field or
task, or in a task that was changed, it does not open. Other sealed texts are not part of this, and the environment that
a restart may replace is not either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields, replace

from runstream.events.run_config import RunConfig, RunConfigTask, Sealed, Text
from runstream.ids import content_hash
from runstream.repository_urls import split_url
from runstream.sealing import Keyring

T = TypeVar("T")
_PREFIXES = ("AGOLA_", "RUNSTREAM_")


def to_seal(text: str) -> Sealed:
    """A secret that `seal_config` will seal; its key has no name."""
    return Sealed("", text)


def seal_config(config: RunConfig, keyring: Keyring) -> RunConfig:
    """Seal what is to be sealed in a run config, and the credentials in the URL of its repository.

    Raises InternalError when there is something to seal and no key.
    """
    config = replace(config, static_environment=_without_credentials(config.static_environment))
    static = _static(config)
    sealed = replace(
        config,
        static_environment=_sealed(config.static_environment, "static", keyring, lambda: static),
        tasks={name: _sealed_task(config, task, keyring) for name, task in config.tasks.items()},
    )
    return replace(sealed, environment=_sealed(config.environment, "environment", keyring, lambda: config.name))


class OpenedSecrets:
    """Opens the secrets of one task, and remembers them."""

    def __init__(self, config: RunConfig, task: RunConfigTask, keyring: Keyring) -> None:
        self._keyring = keyring
        self._about = {"static": lambda: _static(config), "environment": lambda: config.name}
        self._task = lambda: _about(config, task)
        self.secrets: set[str] = set()

    def all(self, texts: Mapping[str, Text], place: str) -> dict[str, str]:
        """The texts of a place in plain. Raises InternalError for one that was sealed for another place."""
        about = self._about.get(place, self._task)
        return {
            name: text if isinstance(text, str) else self._one(text, f"{place}.{name}", about)
            for name, text in texts.items()
        }

    def _one(self, text: Sealed, place: str, about: Callable[[], str]) -> str:
        plain = self._keyring.open(text, _bound(place, about()))
        self.secrets.add(plain)
        return plain


def _sealed_task(config: RunConfig, task: RunConfigTask, keyring: Keyring) -> RunConfigTask:
    return _sealed(task, "task", keyring, lambda: _about(config, task))


def _sealed(value: T, place: str, keyring: Keyring, about: Callable[[], str]) -> T:
    """The value with all in it sealed that is to be sealed."""
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
    """The value for a digest. Fields with their default are left out: a field that is added later changes nothing."""
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


_fields = cache(fields)
"""The fields of a struct: to find them out resolves all its annotations."""


def _default(one: FieldInfo) -> object:
    return one.default_factory() if one.default_factory is not NODEFAULT else one.default


def _without_credentials(static: Mapping[str, Text]) -> Mapping[str, Text]:
    """The environment with the password, or the token, of its repository's URL as texts of their own, to be sealed."""
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
