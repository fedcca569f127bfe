"""Decisions on projects."""

from __future__ import annotations

from msgspec.structs import replace

from runstream.domain.config.decisions.organizations import require_visibility
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import owner_of, path_of
from runstream.domain.config.refusals import missing, require_choice, require_name, taken
from runstream.domain.config.state import Change, ConfigState, Decision
from runstream.domain.config.tree import deletion
from runstream.domain.config.user import User
from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.events.organization import Visibility
from runstream.events.project import (
    ProjectCreated,
    ProjectMoved,
    ProjectRepositoryChanged,
    ProjectSettings,
    ProjectSettingsChanged,
    ProjectVisibilityChanged,
    Repository,
)
from runstream.events.run_config import Sealed

REPOSITORY_KINDS = ("remotesource", "git", "manual")
MANUAL = Repository("manual", "", "", "", "", "", "", None, None, "", skip_ssh_host_key_check=False)
"""No repository: such a project gets its runs by direct requests."""
SETTINGS = ProjectSettings(pass_vars_to_forked_pr=False, default_branch="", members_can_perform_run_actions=False)
"""The settings of a project that asks for none."""


def decide_create_project(
    state: ConfigState,
    *,
    project_id: str,
    name: str,
    parent: ProjectGroup,
    visibility: Visibility,
    repository: Repository,
    settings: ProjectSettings,
    webhook_secret: Sealed,
) -> Decision:
    """Create a project in a group. A group of the same name may be there."""
    require_name(name, "a project", code="invalidProjectName")
    require_visibility(visibility, code="")
    _require_repository(state, repository)
    _require_free(state, parent, name)
    require_settings(state, parent, settings)
    created = ProjectCreated(name, parent.id, visibility, repository, settings, webhook_secret)
    return [Change("project", project_id, (created,))]


def decide_change_project(
    state: ConfigState,
    project: Project,
    *,
    name: str | None = None,
    parent: ProjectGroup | None = None,
    visibility: Visibility | None = None,
    repository: Repository | None = None,
    pass_vars_to_forked_pr: bool | None = None,
    default_branch: str | None = None,
    members_can_perform_run_actions: bool | None = None,
) -> Decision:
    """Rename or move a project, change its visibility, repository or settings; None leaves a value as it is."""
    name = project.name if name is None else name
    new = state.groups[project.parent_id] if parent is None else parent
    events: list[DomainEvent] = []
    require_name(name, "a project", code="invalidProjectName")
    if (name, new.id) != (project.name, project.parent_id):
        _require_free(state, new, name)
        events.append(ProjectMoved(name, new.id))
    if visibility is not None and visibility != project.visibility:
        require_visibility(visibility, code="")
        events.append(ProjectVisibilityChanged(visibility))
    if repository is not None and repository != project.repository:
        _require_repository(state, repository)
        events.append(ProjectRepositoryChanged(repository))
    asked = {
        "pass_vars_to_forked_pr": pass_vars_to_forked_pr,
        "default_branch": default_branch,
        "members_can_perform_run_actions": members_can_perform_run_actions,
    }
    settings = replace(project.settings, **{key: value for key, value in asked.items() if value is not None})
    require_settings(state, new, settings)
    if settings != project.settings:
        events.append(ProjectSettingsChanged(settings))
    return [Change("project", project.id, tuple(events))] if events else []


def decide_delete_project(state: ConfigState, project: Project) -> Decision:
    """Delete a project with its secrets and variables; its runs stay."""
    return deletion(state, project)


def _require_free(state: ConfigState, parent: ProjectGroup, name: str) -> None:
    if state.named("project", parent.id, name) is not None:
        raise taken("project", name, code="projectAlreadyExists", below=path_of(state, parent))


def require_settings(state: ConfigState, parent: ProjectGroup, settings: ProjectSettings) -> None:
    """Raise BadRequestError if a project below a group cannot have these settings."""
    if settings.members_can_perform_run_actions and isinstance(owner_of(state, parent), User):
        raise BadRequestError(
            "members_can_perform_run_actions is for projects of an organization: a user has no members",
            code="cannotSetMembersCanPerformRunActionsOnUserProject",
            hint="leave members_can_perform_run_actions out or turn it off, or use a group of an organization",
        )


def _require_repository(state: ConfigState, repository: Repository) -> None:
    require_choice(repository.kind, REPOSITORY_KINDS, "the kind of repository", code="")
    if repository.kind == "git" and not repository.url:
        raise BadRequestError(
            "the URL of the repository is missing", code="invalidRepositoryURL", hint="give any URL that git can clone"
        )
    if repository.kind == "remotesource":
        _require_access(state, repository)


def _require_access(state: ConfigState, repository: Repository) -> None:
    """Require a repository at a remote source, and an account there that has access to it."""
    source = state.remote_sources.get(repository.remote_source_id)
    if source is None:
        raise missing("remote source", repository.remote_source_id, code="remoteSourceDoesNotExist")
    if not repository.repository_id or not repository.repository_path:
        raise BadRequestError(
            "the path of the repository is missing", code="invalidRepoPath", hint="a path is like OWNER/NAME"
        )
    found = state.account(repository.linked_account_id)
    if found is None:
        raise missing("linked account", repository.linked_account_id, code="linkedAccountDoesNotExist")
    if found[1].remote_source_id != source.id:
        raise BadRequestError(
            f"the linked account is not one of remote source {source.name!r}",
            code="linkedAccountDoesNotExist",
            hint=f"link an account of {source.name!r} first",
        )
