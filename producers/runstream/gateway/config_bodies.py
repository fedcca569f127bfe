"""Requests about users, organizations, projects, secrets and variables.

Clients of other systems send these, so fields that are not known are ignored, and null is a field that is left out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from runstream.errors import BadRequestError
from runstream.gateway.requests import Command, Label, Text, Word, decoded, require_fitting

T = TypeVar("T")
ZonedTime = Annotated[datetime, Meta(tz=True)]


class ConfigBody(msgspec.Struct, frozen=True):
    """The base class of these requests."""


class CreateUserBody(ConfigBody, frozen=True):
    """POST /users."""

    username: Label = ""


class UpdateUserBody(ConfigBody, frozen=True):
    """PUT /users/{user}: another name, or whether the user is an administrator."""

    username: Label | None = None
    admin: bool | None = None


class CreateTokenBody(ConfigBody, frozen=True):
    """POST /users/{user}/tokens."""

    token_name: Word = ""
    scope: Literal["read", "run", "admin"] = "admin"
    """What it allows of what the user may do."""
    expires_at: ZonedTime | None = None


class HostLoginBody(ConfigBody, frozen=True):
    """POST /auth/login, POST /auth/authorize."""

    remote_source_name: Label = ""
    login_name: Label = ""
    password: Word = ""


class LinkAccountBody(ConfigBody, frozen=True):
    """POST /users/{user}/linkedaccounts."""

    remote_source_name: Label = ""
    remote_source_login_name: Label = ""
    remote_source_login_password: Word = ""


class RegisterBody(LinkAccountBody, frozen=True):
    """POST /auth/register."""

    username: Label = ""


class CreateOrganizationBody(ConfigBody, frozen=True):
    """POST /orgs."""

    name: Label = ""
    visibility: Label = ""


class UpdateOrganizationBody(ConfigBody, frozen=True):
    """PUT /orgs/{org}."""

    visibility: Label | None = None


class MemberBody(ConfigBody, frozen=True):
    """PUT /orgs/{org}/members/{user}."""

    role: Label = ""


class InviteBody(ConfigBody, frozen=True):
    """POST /orgs/{org}/invitations."""

    user_ref: Label = ""
    role: Label = ""


class InvitationActionBody(ConfigBody, frozen=True):
    """PUT /user/org_invitations/{org}/actions."""

    action_type: Label = ""
    """`accept` or `reject`."""


class CreateProjectGroupBody(ConfigBody, frozen=True):
    """POST /projectgroups."""

    name: Label = ""
    parent_ref: Word = ""
    """Id or path of the group in which it is created; empty for the user's own."""
    visibility: Label = ""


class UpdateProjectGroupBody(ConfigBody, frozen=True):
    """PUT /projectgroups/{group}."""

    name: Label | None = None
    parent_ref: Word | None = None
    visibility: Label | None = None


class RepositoryBody(ConfigBody, frozen=True):
    """Any repository that git can clone, and the access to it."""

    url: Word = ""
    username: Label = ""
    password: Text = ""
    """A password or a token for the URL."""
    ssh_private_key: Text = ""
    """PEM."""
    known_hosts: Text = ""
    """Lines of known_hosts that identify the server."""


class CreateProjectBody(ConfigBody, frozen=True):
    """POST /projects: with a repository at a remote source, or with any `repository` that git can clone."""

    name: Label = ""
    parent_ref: Word = ""
    """Id or path of the group in which it is created; empty for the user's own."""
    visibility: Label = ""
    repo_path: Word = ""
    remote_source_name: Label = ""
    skip_ssh_host_key_check: bool = False
    pass_vars_to_forked_pr: bool = False
    members_can_perform_run_actions: bool = False
    default_branch: Label = ""
    repository: RepositoryBody | None = None


class UpdateProjectBody(ConfigBody, frozen=True):
    """PUT /projects/{project}."""

    name: Label | None = None
    parent_ref: Word | None = None
    visibility: Label | None = None
    pass_vars_to_forked_pr: bool | None = None
    members_can_perform_run_actions: bool | None = None
    default_branch: Label | None = None
    repository: RepositoryBody | None = None
    """Another repository, only for a project with a URL."""


class SecretBody(ConfigBody, frozen=True):
    """POST and PUT of a secret."""

    name: Label = ""
    type: Label = ""
    """`internal`."""
    data: dict[Label, Command] = {}
    secret_provider_id: Label = ""
    path: Word = ""


class PatternBody(ConfigBody, frozen=True):
    """A name, or an RE2 expression."""

    match: Word
    type: Literal["simple", "regexp"] = "simple"


class ConditionsBody(ConfigBody, frozen=True):
    """Patterns of included names, and of names excluded from these."""

    include: Annotated[list[PatternBody], Meta(max_length=100)] = []
    exclude: Annotated[list[PatternBody], Meta(max_length=100)] = []


class WhenBody(ConfigBody, frozen=True):
    """For which branches, tags and refs a value is meant."""

    branch: ConditionsBody | None = None
    tag: ConditionsBody | None = None
    ref: ConditionsBody | None = None


class VariableValueBody(ConfigBody, frozen=True):
    """A value of a variable: a key of a secret."""

    secret_name: Label = ""
    secret_var: Label = ""
    when: WhenBody | None = None


class VariableBody(ConfigBody, frozen=True):
    """POST and PUT of a variable."""

    name: Label = ""
    values: Annotated[list[VariableValueBody], Meta(max_length=100)] = []


class CreateRemoteSourceBody(ConfigBody, frozen=True):
    """POST /remotesources."""

    name: Label = ""
    apiurl: Label = ""
    type: Label = ""
    auth_type: Label = ""
    skip_verify: bool = False
    oauth_2_client_id: Label = ""
    oauth_2_client_secret: Text = ""
    ssh_host_key: Text = ""
    skip_ssh_host_key_check: bool = False
    registration_enabled: bool = True
    login_enabled: bool = True


class UpdateRemoteSourceBody(ConfigBody, frozen=True):
    """PUT /remotesources/{source}."""

    name: Label | None = None
    apiurl: Label | None = None
    skip_verify: bool | None = None
    oauth_2_client_id: Label | None = None
    oauth_2_client_secret: Text | None = None
    ssh_host_key: Text | None = None
    skip_ssh_host_key_check: bool | None = None
    registration_enabled: bool | None = None
    login_enabled: bool | None = None


class LoginLinkBody(ConfigBody, frozen=True):
    """POST /auth/loginlink."""

    username: Label | None = ""
    """Name or id; empty for the sender."""


class LoginTokenBody(ConfigBody, frozen=True):
    """POST /auth/session."""

    token: Word = ""
    """The secret of a login link, or a token."""


BODIES: tuple[type[ConfigBody], ...] = (
    CreateUserBody,
    UpdateUserBody,
    CreateTokenBody,
    HostLoginBody,
    LinkAccountBody,
    RegisterBody,
    CreateOrganizationBody,
    UpdateOrganizationBody,
    MemberBody,
    InviteBody,
    InvitationActionBody,
    CreateProjectGroupBody,
    UpdateProjectGroupBody,
    CreateProjectBody,
    UpdateProjectBody,
    SecretBody,
    VariableBody,
    CreateRemoteSourceBody,
    UpdateRemoteSourceBody,
    LoginLinkBody,
    LoginTokenBody,
)


def decoded_leniently(content: bytes, kind: type[T]) -> T:
    """Decode a body as a `kind`, null as a field that is left out. Raises BadRequestError."""
    value = decoded(content, dict[str, Any])
    try:
        found = msgspec.convert(_without_null(value), kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(
            f"the body does not fit: {error}",
            code="invalidBody",
            hint="/api/v1alpha/openapi.json describes the body of each route",
        ) from error
    require_fitting(found, kind)
    return found


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(one) for key, one in value.items() if one is not None}
    return [_without_null(one) for one in value] if isinstance(value, list) else value
