"""Changes that make things, for tests that do not care how they came about."""

from __future__ import annotations

from runstream.domain.config.decisions.projects import MANUAL, SETTINGS
from runstream.domain.config.state import Change
from runstream.events.project import ProjectCreated
from runstream.events.project_group import GroupParent, ProjectGroupCreated
from runstream.events.run_config import Sealed
from runstream.ids import new_id

SEALED = Sealed("key", "sealed")


def new_group(parent: str, name: str) -> Change:
    """A public group in a group."""
    return Change("projectgroup", new_id(), (ProjectGroupCreated(name, GroupParent("projectgroup", parent), "public"),))


def new_project(parent: str, name: str) -> Change:
    """A public project without a repository."""
    return Change("project", new_id(), (ProjectCreated(name, parent, "public", MANUAL, SETTINGS, SEALED),))
