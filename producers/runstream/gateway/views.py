"""Users, organizations, projects, secrets and variables as the API shows them (docs/reference/api.md)."""

from __future__ import annotations

from runstream import api
from runstream.config.run_inputs import InheritedSecrets, matching_secret_path, parent_path
from runstream.domain.config.organization import Invitation, Organization
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import parent_path_of, path_of
from runstream.domain.config.remote_source import RemoteSource
from runstream.domain.config.secret import StoredSecret
from runstream.domain.config.state import ConfigState
from runstream.domain.config.tree import global_visibility
from runstream.domain.config.user import User, UserToken
from runstream.domain.config.variable import StoredVariable
from runstream.events.variable import NamePatterns, ValueCondition


def user_view(user: User) -> api.UserView:
    """Return a user as everybody sees it."""
    return api.UserView(user.id, user.name)


def private_user_view(user: User) -> api.PrivateUserView:
    """Return a user as that user and administrators see it."""
    accounts = (
        api.LinkedAccountView(one.id, one.remote_source_id, one.remote_username, one.remote_user_avatar_url)
        for one in user.accounts.values()
    )
    return api.PrivateUserView(
        user.id, user.name, tuple(sorted(one.name for one in user.tokens.values())), tuple(accounts), user.admin
    )


def token_entry(token: UserToken) -> api.TokenEntry:
    """Return a token without its text."""
    return api.TokenEntry(token.name, token.scope, token.expires_at, token.created_at)


def organization_view(organization: Organization) -> api.OrganizationView:
    """Return an organization."""
    return api.OrganizationView(organization.id, organization.name, organization.visibility)


def invitation_view(organization: Organization, invitation: Invitation) -> api.InvitationView:
    """Return an invitation to an organization."""
    return api.InvitationView(invitation.id, invitation.user_id, organization.id, organization.name)


def project_group_view(state: ConfigState, group: ProjectGroup) -> api.ProjectGroupView:
    """Return a project group."""
    return api.ProjectGroupView(
        group.id,
        group.name,
        path_of(state, group),
        parent_path_of(state, group),
        group.visibility,
        global_visibility(state, group),
    )


def project_view(state: ConfigState, project: Project) -> api.ProjectView:
    """Return a project."""
    settings = project.settings
    return api.ProjectView(
        project.id,
        project.name,
        path_of(state, project),
        parent_path_of(state, project),
        project.visibility,
        global_visibility(state, project),
        settings.pass_vars_to_forked_pr,
        settings.default_branch,
        settings.members_can_perform_run_actions,
        project.repository.url,
    )


def secret_view(state: ConfigState, secret: StoredSecret) -> api.SecretView:
    """Return a secret without its texts."""
    return api.SecretView(secret.id, secret.name, parent_path(state, secret))


def variable_view(state: ConfigState, variable: StoredVariable, secrets: InheritedSecrets) -> api.VariableView:
    """Return a variable; the places of its secrets are those among the secrets that a project or group inherits."""
    path = parent_path(state, variable)
    values = (
        api.VariableValueView(
            value.secret_name, value.secret_var, matching_secret_path(secrets, value, path), _when(value.when)
        )
        for value in variable.values
    )
    return api.VariableView(variable.id, variable.name, path, tuple(values))


def _when(condition: ValueCondition | None) -> api.WhenView | None:
    if condition is None:
        return None
    return api.WhenView(_conditions(condition.branch), _conditions(condition.tag), _conditions(condition.ref))


def _conditions(patterns: NamePatterns | None) -> api.ConditionsView | None:
    if patterns is None:
        return None
    include, exclude = (
        tuple(api.PatternView(one.type, one.match) for one in those) for those in (patterns.include, patterns.exclude)
    )
    return api.ConditionsView(include, exclude)


def remote_source_view(source: RemoteSource) -> api.RemoteSourceView:
    """Return a remote source without its secret."""
    settings = source.settings
    return api.RemoteSourceView(
        source.id, source.name, settings.auth_type, settings.registration_enabled, settings.login_enabled
    )
