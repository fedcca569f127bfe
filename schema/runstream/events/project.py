"""The events of a project."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from runstream.events.event import DomainEvent
from runstream.events.organization import Visibility
from runstream.events.run_config import Sealed

RepositoryKind = Literal["remotesource", "git", "manual"]
"""A repository at a remote source, at any URL that git can clone, or none."""


class Repository(Struct, frozen=True, gc=False):
    """The repository of a project; the fields of other kinds are empty."""

    kind: RepositoryKind
    remote_source_id: str
    linked_account_id: str
    """The account whose access the project uses."""
    repository_id: str
    """At the remote source."""
    repository_path: str
    """At the remote source."""
    url: str
    """Of a `git` repository, without credentials."""
    username: str
    """For the URL."""
    password: Sealed | None
    """A password or token for the URL."""
    ssh_private_key: Sealed | None
    """PEM."""
    known_hosts: str
    """Lines of known_hosts that identify the server of the URL."""
    skip_ssh_host_key_check: bool


class ProjectSettings(Struct, frozen=True, gc=False):
    """The settings of a project."""

    pass_vars_to_forked_pr: bool
    """Whether runs of pull requests from forks get variables."""
    default_branch: str
    members_can_perform_run_actions: bool
    """Whether all members of the organization may restart, cancel and stop runs."""


class ProjectCreated(DomainEvent, frozen=True):
    """A project was created."""

    name: str
    parent_id: str
    """Its project group."""
    visibility: Visibility
    repository: Repository
    settings: ProjectSettings
    webhook_secret: Sealed


class ProjectMoved(DomainEvent, frozen=True):
    """The project got another group, another name, or both."""

    name: str
    parent_id: str


class ProjectVisibilityChanged(DomainEvent, frozen=True):
    """The project was made public or private."""

    visibility: Visibility


class ProjectSettingsChanged(DomainEvent, frozen=True):
    """The project got other settings."""

    settings: ProjectSettings


class ProjectRepositoryChanged(DomainEvent, frozen=True):
    """The project got another repository, or other access to it."""

    repository: Repository


class ProjectWebhookSecretSealed(DomainEvent, frozen=True):
    """The webhook secret was sealed again, with another key."""

    webhook_secret: Sealed


class ProjectDeleted(DomainEvent, frozen=True):
    """The project was deleted; its secrets and variables were deleted before."""


ProjectEvent = (
    ProjectCreated
    | ProjectMoved
    | ProjectVisibilityChanged
    | ProjectSettingsChanged
    | ProjectRepositoryChanged
    | ProjectWebhookSecretSealed
    | ProjectDeleted
)
PROJECT_EVENTS: tuple[type[DomainEvent], ...] = get_args(ProjectEvent)
