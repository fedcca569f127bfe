"""The events of a remote source: a git host with an API."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from runstream.events.event import DomainEvent
from runstream.events.run_config import Sealed

RemoteSourceType = Literal["gitea", "github", "gitlab"]
RemoteAuthType = Literal["password", "oauth2"]


class RemoteSourceSettings(Struct, frozen=True, gc=False):
    """How Runstream talks to a git host, and what users may do with their accounts there."""

    type: RemoteSourceType
    auth_type: RemoteAuthType
    apiurl: str
    skip_verify: bool
    """Whether certificates of the API are not checked."""
    oauth2_client_id: str
    oauth2_client_secret: Sealed | None
    ssh_host_key: str
    skip_ssh_host_key_check: bool
    registration_enabled: bool
    login_enabled: bool


class RemoteSourceCreated(DomainEvent, frozen=True):
    """A remote source was created."""

    name: str
    settings: RemoteSourceSettings


class RemoteSourceRenamed(DomainEvent, frozen=True):
    """The remote source got another name."""

    name: str


class RemoteSourceSettingsChanged(DomainEvent, frozen=True):
    """The remote source got other settings."""

    settings: RemoteSourceSettings


class RemoteSourceDeleted(DomainEvent, frozen=True):
    """The remote source was deleted."""


RemoteSourceEvent = RemoteSourceCreated | RemoteSourceRenamed | RemoteSourceSettingsChanged | RemoteSourceDeleted
REMOTE_SOURCE_EVENTS: tuple[type[DomainEvent], ...] = get_args(RemoteSourceEvent)
