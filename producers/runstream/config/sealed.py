"""Sealed texts of the config service: each is bound to the thing that has it, its place, and its field.

A sealed text that is copied to another secret, project or account does not open there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from runstream.domain.config.project import Project
from runstream.domain.config.remote_source import RemoteSource
from runstream.domain.config.secret import StoredSecret
from runstream.domain.config.state import Change, ConfigState, Decision
from runstream.domain.config.user import LinkedAccount, User
from runstream.events.event import DomainEvent
from runstream.events.project import ProjectRepositoryChanged, ProjectWebhookSecretSealed, Repository
from runstream.events.remote_source import RemoteSourceSettings, RemoteSourceSettingsChanged
from runstream.events.run_config import Sealed
from runstream.events.secret import SecretDataReplaced, TreePlace
from runstream.events.user import AccountCredentials, LinkedAccountChanged
from runstream.sealing import Keyring

S = TypeVar("S", Repository, AccountCredentials, RemoteSourceSettings)


def _secret_bound(secret_id: str, parent: TreePlace, key: str) -> str:
    return f"secret {secret_id} of {parent.kind} {parent.id}, {key}"


def seal_secret(keyring: Keyring, secret_id: str, parent: TreePlace, data: Mapping[str, str]) -> dict[str, Sealed]:
    """Seal the texts of a secret. Raises InternalError without a key."""
    return {key: keyring.seal(text, _secret_bound(secret_id, parent, key)) for key, text in data.items()}


def open_secret(keyring: Keyring, secret: StoredSecret) -> dict[str, str]:
    """Open the texts of a secret. Raises InternalError without their key, or for a text of another place."""
    return {key: keyring.open(text, _secret_bound(secret.id, secret.parent, key)) for key, text in secret.data.items()}


def seal_text(keyring: Keyring, text: str, kind: str, thing_id: str, field: str) -> Sealed:
    """Seal a text of a thing (`project`, its id, `webhook_secret`). Raises InternalError without a key."""
    return keyring.seal(text, f"{kind} {thing_id}, {field}")


def open_text(keyring: Keyring, sealed: Sealed | None, kind: str, thing_id: str, field: str) -> str:
    """Open a text of a thing; empty for None. Raises InternalError without its key, or for one of another place."""
    return "" if sealed is None else keyring.open(sealed, f"{kind} {thing_id}, {field}")


def reseal(state: ConfigState, keyring: Keyring) -> Decision:
    """Seal everything again that is not sealed with the first key of the ring.

    Raises InternalError for a text whose key is missing.
    """
    first = next(iter(keyring.ids), "")
    changes = (
        *(_secret(keyring, first, secret) for secret in state.secrets.values()),
        *(_project(keyring, first, project) for project in state.projects.values()),
        *(_user(keyring, first, user) for user in state.users.values()),
        *(_remote_source(keyring, first, source) for source in state.remote_sources.values()),
    )
    return [change for change in changes if change.events]


def _secret(keyring: Keyring, first: str, secret: StoredSecret) -> Change:
    stale = any(text.key != first for text in secret.data.values())
    data = seal_secret(keyring, secret.id, secret.parent, open_secret(keyring, secret)) if stale else {}
    return Change("secret", secret.id, (SecretDataReplaced(data),) if stale else ())


def _project(keyring: Keyring, first: str, project: Project) -> Change:
    events: list[DomainEvent] = []
    repository = _fields(keyring, first, project.repository, "project", project.id)
    if repository is not project.repository:
        events.append(ProjectRepositoryChanged(repository))
    if project.webhook_secret.key != first:
        events.append(
            ProjectWebhookSecretSealed(_again(keyring, project.webhook_secret, "project", project.id, "webhook_secret"))
        )
    return Change("project", project.id, tuple(events))


def _user(keyring: Keyring, first: str, user: User) -> Change:
    return Change("user", user.id, tuple(_account(keyring, first, account) for account in _stale(first, user)))


def _stale(first: str, user: User) -> list[LinkedAccount]:
    return [
        account
        for account in user.accounts.values()
        if any(
            isinstance(text := getattr(account.credentials, name), Sealed) and text.key != first
            for name in account.credentials.__struct_fields__
        )
    ]


def _account(keyring: Keyring, first: str, account: LinkedAccount) -> LinkedAccountChanged:
    return LinkedAccountChanged(
        account.id,
        account.remote_username,
        account.remote_user_avatar_url,
        _fields(keyring, first, account.credentials, "linkedaccount", account.id),
        account.oauth2_expires_at,
    )


def _remote_source(keyring: Keyring, first: str, source: RemoteSource) -> Change:
    settings = _fields(keyring, first, source.settings, "remotesource", source.id)
    return Change(
        "remotesource", source.id, (RemoteSourceSettingsChanged(settings),) if settings is not source.settings else ()
    )


def _fields(keyring: Keyring, first: str, value: S, kind: str, thing_id: str) -> S:
    """Return the value with its sealed fields sealed by the first key; the same value if they are."""
    found = {name: getattr(value, name) for name in value.__struct_fields__}
    stale = {
        name: _again(keyring, text, kind, thing_id, name)
        for name, text in found.items()
        if isinstance(text, Sealed) and text.key != first
    }
    return replace(value, **stale) if stale else value


def _again(keyring: Keyring, text: Sealed, kind: str, thing_id: str, field: str) -> Sealed:
    return seal_text(keyring, open_text(keyring, text, kind, thing_id, field), kind, thing_id, field)
