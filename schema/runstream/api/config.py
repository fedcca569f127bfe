"""Users, organizations, projects and what belongs to them; sessions and the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from runstream.api.answer import Answer, one_of


class UserView(Answer, frozen=True):
    """A user."""

    id: str
    username: str


class LinkedAccountView(Answer, frozen=True):
    """An account at a git host that is linked to a user."""

    id: str
    remote_source_id: str
    remote_user_name: str
    remote_user_avatar_url: str


class CreatedAccountView(Answer, frozen=True, omit_defaults=True):
    """An account at a git host that was linked. Empty fields are left out."""

    id: str = ""
    remote_user_id: str = ""
    remote_username: str = ""
    remote_user_avatar_url: str = ""
    remote_source_id: str = ""


class LinkedAnswer(Answer, frozen=True):
    """A linked account."""

    linked_account: CreatedAccountView
    oauth2_redirect: str = ""


class HostLoginAnswer(Answer, frozen=True):
    """A login through a git host; its cookies are in the headers."""

    user: UserView
    oauth2_redirect: str = ""


class RemoteUserInfo(Answer, frozen=True, rename={"id": "ID", "login_name": "LoginName", "email": "Email"}):
    """A user of a git host."""

    id: str
    login_name: str
    email: str


class RemoteRepositoryView(Answer, frozen=True):
    """A repository of a git host."""

    id: str
    path: str


class HostAuthorizedAnswer(Answer, frozen=True):
    """A user of a git host who gave the right password."""

    remote_user_info: RemoteUserInfo
    remote_source_name: str
    oauth2_redirect: str = ""


class HostRedirectAnswer(Answer, frozen=True):
    """Where the browser goes to log in at the git host. Empty after a registration by password, which is done."""

    oauth2_redirect: str = ""


class OAuth2CallbackAnswer(Answer, frozen=True):
    """What a login at a git host was for (`createuserla`, `loginuser`, `authorize` or `registeruser`), and its answer.

    The answer is that of the same request with a password.
    """

    request_type: str
    response: dict[str, Any]


class PrivateUserView(Answer, frozen=True):
    """A user, as that user and administrators see it."""

    id: str
    username: str
    tokens: tuple[str, ...]
    """Names, in order."""
    linked_accounts: tuple[LinkedAccountView, ...]
    admin: bool = False


class TokenView(Answer, frozen=True):
    """A new token, which is shown this once."""

    token: str


class TokenEntry(Answer, frozen=True):
    """A token of a user, without its text."""

    name: str
    scope: Annotated[str, one_of("read", "run", "admin")]
    """What it allows of what the user may do."""
    expires_at: datetime | None
    created_at: datetime | None


class OrganizationView(Answer, frozen=True):
    """An organization."""

    id: str
    name: str
    visibility: Annotated[str, one_of("public", "private")]


class MemberView(Answer, frozen=True):
    """A member of an organization."""

    user: UserView
    role: Annotated[str, one_of("owner", "member")]


class MembersView(Answer, frozen=True):
    """Members of an organization."""

    organization: OrganizationView
    members: tuple[MemberView, ...]


class AddedMemberView(Answer, frozen=True):
    """A member that was added to an organization, or got another role."""

    organization: OrganizationView
    user: UserView
    role: Annotated[str, one_of("owner", "member")]


class MembershipView(Answer, frozen=True, rename={"organization": "Organization", "role": "Role"}):
    """An organization of a user, and the user's role there."""

    organization: OrganizationView
    role: str


class InvitationView(Answer, frozen=True):
    """An invitation of a user to an organization."""

    id: str
    user_ref: str
    """The id of the user."""
    organization_id: str
    organization_name: str


class ProjectGroupView(Answer, frozen=True):
    """A project group."""

    id: str
    name: str
    """Empty for the root group of a user or an organization."""
    path: str
    parent_path: str
    visibility: Annotated[str, one_of("public", "private")]
    global_visibility: Annotated[str, one_of("public", "private")]
    """`private` also below something private."""


class ProjectView(Answer, frozen=True, omit_defaults=True):
    """A project. Fields that are false or empty are left out."""

    id: str = ""
    name: str = ""
    path: str = ""
    parent_path: str = ""
    visibility: str = ""
    global_visibility: str = ""
    """`private` also below something private."""
    pass_vars_to_forked_pr: bool = False
    default_branch: str = ""
    members_can_perform_run_actions: bool = False
    repository_url: str = ""
    """Of a project with the URL of a git repository."""


class SecretView(Answer, frozen=True):
    """A secret, without its texts."""

    id: str
    name: str
    parent_path: str


class PatternView(Answer, frozen=True):
    """A name, or an RE2 expression."""

    type: Annotated[str, one_of("simple", "regexp")]
    match: str


class ConditionsView(Answer, frozen=True, omit_defaults=True):
    """Patterns of included names, and of names excluded from these."""

    include: tuple[PatternView, ...] = ()
    exclude: tuple[PatternView, ...] = ()


class WhenView(Answer, frozen=True, omit_defaults=True):
    """For which branches, tags and refs a value is meant."""

    branch: ConditionsView | None = None
    tag: ConditionsView | None = None
    ref: ConditionsView | None = None


class VariableValueView(Answer, frozen=True):
    """A value of a variable: a key of a secret."""

    secret_name: str
    secret_var: str
    matching_secret_parent_path: str
    """Where the secret is that the value has here; empty without one."""
    when: WhenView | None


class VariableView(Answer, frozen=True):
    """A variable."""

    id: str
    name: str
    parent_path: str
    values: tuple[VariableValueView, ...]


class RemoteSourceView(Answer, frozen=True):
    """A git host."""

    id: str
    name: str
    auth_type: Annotated[str, one_of("password", "oauth2")]
    registration_enabled: bool
    login_enabled: bool


class SessionView(Answer, frozen=True):
    """A login with cookies."""

    id: str
    created_at: datetime
    expires_at: datetime
    user_agent: str
    current: bool
    """Whether it is the session of the request."""


class LoginLink(Answer, frozen=True):
    """A link that logs a user in once."""

    url: str
    expires_at: datetime


class AuditedEvent(Answer, frozen=True):
    """An event of a change."""

    type: str
    fields: dict[str, str | bool]
    """Those that say what changed; secrets are never among them."""


class AuditEntry(Answer, frozen=True):
    """A change of a user, organization, project group, project, secret, variable or remote source."""

    position: str
    time: datetime
    actor: str
    """The author: `user:NAME`, or `admin` for the administrator's token."""
    kind: str
    id: str
    name: str
    """Its last name."""
    path: str
    """Its last path; of a secret or a variable, of the project or group that has it."""
    events: tuple[AuditedEvent, ...]


class LoginView(Answer, frozen=True):
    """A login; after POST, its cookies are in the headers."""

    user: UserView | None
    """None for the holder of the admin token."""
    admin: bool = False
    """Whether the sender administers the deployment."""
    scope: Annotated[str, one_of("read", "run", "admin")] = "admin"
    """What the token allows with which the user logged in."""
