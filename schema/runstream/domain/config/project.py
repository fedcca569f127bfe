"""A project: a repository whose commits run, with settings, secrets and variables."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.domain.config.fitting import Claim, Reference, existing, require_new
from runstream.events.organization import Visibility
from runstream.events.project import (
    ProjectCreated,
    ProjectDeleted,
    ProjectEvent,
    ProjectMoved,
    ProjectRepositoryChanged,
    ProjectSettings,
    ProjectSettingsChanged,
    ProjectVisibilityChanged,
    ProjectWebhookSecretSealed,
    Repository,
)
from runstream.events.run_config import Sealed


class Project(Struct, frozen=True, gc=False):
    """A project."""

    id: str
    name: str
    parent_id: str
    """Its project group."""
    visibility: Visibility
    repository: Repository
    settings: ProjectSettings
    webhook_secret: Sealed
    created_at: datetime
    updated_at: datetime

    def claims(self) -> Iterator[Claim]:
        """Yield its name, which no other project of its group may have."""
        yield "project", self.parent_id, self.name

    def references(self) -> Iterator[Reference]:
        """Yield its group, which has to exist. A linked account may be gone: the project then needs another one."""
        yield "projectgroup", self.parent_id


def evolve_project(project: Project | None, key: str, event: ProjectEvent, at: datetime) -> Project | None:
    """Return the project after an event; None once deleted. Raises Unfit."""
    if isinstance(event, ProjectCreated):
        require_new(project, key)
        return Project(
            key,
            event.name,
            event.parent_id,
            event.visibility,
            event.repository,
            event.settings,
            event.webhook_secret,
            at,
            at,
        )
    project = existing(project, key)
    match event:
        case ProjectMoved(name, parent_id):
            return replace(project, name=name, parent_id=parent_id, updated_at=at)
        case ProjectVisibilityChanged(visibility):
            return replace(project, visibility=visibility, updated_at=at)
        case ProjectSettingsChanged(settings):
            return replace(project, settings=settings, updated_at=at)
        case ProjectRepositoryChanged(repository):
            return replace(project, repository=repository, updated_at=at)
        case ProjectWebhookSecretSealed(webhook_secret):
            return replace(project, webhook_secret=webhook_secret, updated_at=at)
        case ProjectDeleted():
            return None
        case _:
            assert_never(event)
