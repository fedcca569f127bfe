"""What projects, variables and remote sources are created and changed with, as the service takes it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from runstream.api import WhenView

Visibility = Literal["public", "private"]
MemberRole = Literal["owner", "member"]
TokenScope = Literal["read", "run", "admin"]


class NewRepository(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A repository that git can clone, and the access to it."""

    url: str
    username: str = ""
    password: str = ""
    """A password or a token for the URL."""
    ssh_private_key: str = ""
    """PEM."""
    known_hosts: str = ""
    """Lines of known_hosts that identify the server of the URL."""


class NewProject(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A project to create, with a repository at a remote source or at a URL."""

    name: str
    parent_ref: str = ""
    """Path or id of its group; empty for the group of the token's user."""
    visibility: Visibility
    repo_path: str = ""
    """The repository's path at the remote source."""
    remote_source_name: str = ""
    repository: NewRepository | None = None
    """Instead of a remote source."""
    skip_ssh_host_key_check: bool = False
    pass_vars_to_forked_pr: bool = False
    """Whether runs of pull requests from forks get variables."""
    members_can_perform_run_actions: bool = False
    """Whether all members of the organization may restart, cancel and stop runs."""
    default_branch: str = ""


class ProjectGroupChanges(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Changes of a project group; None for what stays."""

    name: str | None = None
    parent_ref: str | None = None
    visibility: Visibility | None = None


class ProjectChanges(ProjectGroupChanges, frozen=True, omit_defaults=True, kw_only=True):
    """Changes of a project; None for what stays."""

    pass_vars_to_forked_pr: bool | None = None
    members_can_perform_run_actions: bool | None = None
    default_branch: str | None = None
    repository: NewRepository | None = None


class NewVariableValue(Struct, frozen=True, omit_defaults=True):
    """A value of a variable: a text of a secret."""

    secret_name: str
    secret_var: str
    """The key in the secret's data."""
    when: WhenView | None = None
    """None for every branch, tag and ref."""


class NewRemoteSource(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A remote source to create."""

    name: str
    type: str
    """gitea, gitlab or github."""
    auth_type: str
    """password or oauth2."""
    apiurl: str
    skip_verify: bool = False
    """Whether the host's certificate is not verified."""
    oauth_2_client_id: str = ""
    oauth_2_client_secret: str = ""
    ssh_host_key: str = ""
    skip_ssh_host_key_check: bool = False
    registration_enabled: bool | None = None
    """None for the service's default, which is true."""
    login_enabled: bool | None = None
    """None for the service's default, which is true."""


class RemoteSourceChanges(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Changes of a remote source; None for what stays."""

    name: str | None = None
    apiurl: str | None = None
    skip_verify: bool | None = None
    oauth_2_client_id: str | None = None
    oauth_2_client_secret: str | None = None
    ssh_host_key: str | None = None
    skip_ssh_host_key_check: bool | None = None
    registration_enabled: bool | None = None
    login_enabled: bool | None = None


class CommitChoice(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A commit of a project's repository; give exactly one of branch, tag and ref."""

    branch: str = ""
    tag: str = ""
    ref: str = ""
    """Such as refs/heads/main."""
    commit_sha: str = ""
    """Another commit than the ref's; may be the beginning of an id."""
    cache_group: str = ""
    """The project or user whose caches the runs use, such as /project/<id>; empty for the project's own."""


class NewDirectRun(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A working tree that was pushed to `/repos/<repo_path>.git`; give exactly one of branch, tag and ref."""

    repo_uuid: str
    """The id of the clone, whose caches no other clone shares."""
    repo_path: str
    """`<user id>/<repository uuid>`."""
    branch: str = ""
    tag: str = ""
    ref: str = ""
    commit_sha: str
    message: str
    pull_request_ref_regexes: tuple[str, ...] = ()
    """RE2 expressions; the first submatch is the id of a pull request."""
    variables: dict[str, str] = {}
    """For `from_variable` alone."""
