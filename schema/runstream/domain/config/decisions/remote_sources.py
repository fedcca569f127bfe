"""Decisions on remote sources."""

from __future__ import annotations

from runstream.domain.config.refusals import require_choice, require_name, taken
from runstream.domain.config.remote_source import RemoteSource
from runstream.domain.config.state import Change, ConfigState, Decision
from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.events.remote_source import (
    RemoteSourceCreated,
    RemoteSourceDeleted,
    RemoteSourceRenamed,
    RemoteSourceSettings,
    RemoteSourceSettingsChanged,
)

AUTH_TYPES: dict[str, tuple[str, ...]] = {
    "gitea": ("oauth2", "password"),
    "github": ("oauth2",),
    "gitlab": ("oauth2",),
}
"""How users can log in, by the type of the git host."""


def decide_create_remote_source(
    state: ConfigState, *, source_id: str, name: str, settings: RemoteSourceSettings
) -> Decision:
    """Create a remote source."""
    _require_remote_source_name(state, name)
    _require_settings(settings)
    return [Change("remotesource", source_id, (RemoteSourceCreated(name, settings),))]


def decide_change_remote_source(
    state: ConfigState, source: RemoteSource, *, name: str | None = None, settings: RemoteSourceSettings | None = None
) -> Decision:
    """Rename a remote source, or replace its settings; None leaves a value as it is."""
    events: list[DomainEvent] = []
    if name is not None and name != source.name:
        _require_remote_source_name(state, name)
        events.append(RemoteSourceRenamed(name))
    if settings is not None and settings != source.settings:
        _require_settings(settings)
        events.append(RemoteSourceSettingsChanged(settings))
    return [Change("remotesource", source.id, tuple(events))] if events else []


def decide_delete_remote_source(state: ConfigState, source: RemoteSource) -> Decision:
    """Delete a remote source to which no account is linked."""
    accounts = state.referrers("remotesource", source.id)
    if accounts:
        raise BadRequestError(
            f"remote source {source.name!r} has linked accounts (of {len(accounts)} users)",
            code="remoteSourceInUse",
            details={"users": len(accounts)},
            hint="remove the linked accounts first",
        )
    return [Change("remotesource", source.id, (RemoteSourceDeleted(),))]


def _require_remote_source_name(state: ConfigState, name: str) -> None:
    require_name(name, "a remote source", code="invalidRemoteSourceName")
    if state.named("remotesource", "", name) is not None:
        raise taken("remote source", name, code="remoteSourceAlreadyExists")


def _require_settings(settings: RemoteSourceSettings) -> None:
    if not settings.apiurl:
        raise BadRequestError(
            "the URL of the remote source's API is missing",
            code="invalidRemoteSourceAPIURL",
            hint="give apiurl, such as https://git.example.com",
        )
    require_choice(settings.type, tuple(AUTH_TYPES), "the type of a remote source", code="invalidRemoteSourceType")
    require_choice(
        settings.auth_type,
        AUTH_TYPES[settings.type],
        f"the auth type of {settings.type}",
        code="invalidRemoteSourceAuthType",
    )
    if settings.auth_type != "oauth2":
        return
    if not settings.oauth2_client_id:
        raise BadRequestError(
            "the OAuth2 client id is missing", code="invalidOauth2ClientID", hint="register Runstream at the git host"
        )
    if settings.oauth2_client_secret is None:
        raise BadRequestError(
            "the OAuth2 client secret is missing",
            code="invalidOauth2ClientSecret",
            hint="register Runstream at the git host",
        )
