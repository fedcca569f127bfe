"""Each decision on a request: what it refuses, with the code that clients know, and what it changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from runstream.domain.config.decisions import organizations, project_groups, projects, remote_sources, secrets, users
from runstream.domain.config.decisions.projects import MANUAL, SETTINGS
from runstream.domain.config.decisions.users import NewAccount, NewToken
from runstream.domain.config.fitting import Unfit
from runstream.domain.config.references import path_of
from runstream.domain.config.remote_source import RemoteSource
from runstream.domain.config.state import Change
from runstream.domain.config.tree import global_visibility, secrets_of
from runstream.errors import BadRequestError, Kind, NotExistError, RunstreamError
from runstream.events.project import ProjectSettings, ProjectWebhookSecretSealed, Repository
from runstream.events.project_group import GroupParent, ProjectGroupCreated, ProjectGroupMoved
from runstream.events.remote_source import RemoteSourceSettings
from runstream.events.run_config import Sealed
from runstream.events.secret import SecretCreated, TreePlace
from runstream.events.user import AccountCredentials, UserCreated, UserTokenCreated
from runstream.events.variable import SecretValue, VariableCreated
from tests.domain.config.commands import DATA, SEALED, VALUES
from tests.domain.config.world import ACME, ConfigWorld
from tests.domain.world import START

NONE = AccountCredentials(None, None, None)
GITEA = RemoteSourceSettings(
    "gitea",
    "password",
    "https://git.example.com",
    skip_verify=False,
    oauth2_client_id="",
    oauth2_client_secret=None,
    ssh_host_key="",
    skip_ssh_host_key_check=False,
    registration_enabled=True,
    login_enabled=True,
)
Request = Callable[[ConfigWorld], Any]


def world() -> ConfigWorld:
    """The organization of `ACME`, with a remote source and an account of ada there."""
    made = ConfigWorld(*ACME)
    made.apply(remote_sources.decide_create_remote_source(made.state, source_id="rs", name="gitea", settings=GITEA))
    made.apply(users.decide_add_account(made.state, made.user("ada"), account("la")))
    return made


def account(key: str, source: str = "rs", remote: str = "7") -> NewAccount:
    return NewAccount(key, source, remote, "ada-at-gitea", "", NONE, None)


def token(name: str, scope: Any = "admin", key: str = "t") -> NewToken:
    return NewToken(key, name, f"digest of {key}", scope, None)


def expiring(at: datetime) -> NewToken:
    return replace(token("t"), expires_at=at)


def at_gitea(**changes: Any) -> Repository:
    return replace(
        MANUAL,
        **{
            "kind": "remotesource",
            "remote_source_id": "rs",
            "linked_account_id": "la",
            "repository_id": "1",
            "repository_path": "ada/web",
        }
        | changes,
    )


def new_project(w: ConfigWorld, name: str = "new", parent: str = "org/acme", **changes: Any) -> Any:
    given: dict[str, Any] = {"visibility": "public", "repository": MANUAL, "settings": SETTINGS} | changes
    return projects.decide_create_project(
        w.state, project_id="p", name=name, parent=w.group(parent), webhook_secret=SEALED, **given
    )


def new_source(w: ConfigWorld, name: str = "other", **changes: Any) -> Any:
    settings = replace(GITEA, **changes)
    return remote_sources.decide_create_remote_source(w.state, source_id="rs2", name=name, settings=settings)


def place(w: ConfigWorld) -> TreePlace:
    return TreePlace("project", w.project("org/acme/tools/web").id)


def new_secret(w: ConfigWorld, name: str = "s", data: Any = DATA) -> Any:
    return secrets.decide_create_secret(w.state, secret_id="secret", parent=place(w), name=name, data=data)


def new_variable(w: ConfigWorld, name: str = "v", values: Any = VALUES) -> Any:
    return secrets.decide_create_variable(w.state, variable_id="variable", parent=place(w), name=name, values=values)


def new_user(w: ConfigWorld, name: str, **more: Any) -> Any:
    return users.decide_create_user(w.state, user_id="u", root_group_id="g", name=name, **more)


SECRET: Any = "secret"
BOSS: Any = "boss"
MEMBERS = ProjectSettings(pass_vars_to_forked_pr=False, default_branch="", members_can_perform_run_actions=True)
REFUSED: list[tuple[str, Request]] = [
    ("invalidUserName", lambda w: new_user(w, "")),
    ("invalidUserName", lambda w: new_user(w, "no name")),
    ("userAlreadyExists", lambda w: new_user(w, "ada")),
    ("linkedAccountAlreadyExists", lambda w: new_user(w, "new", account=account("la2"))),
    ("remoteSourceDoesNotExist", lambda w: new_user(w, "new", account=account("la2", source="none"))),
    ("invalidUserName", lambda w: users.decide_rename_user(w.state, w.user("ada"), "-")),
    ("userAlreadyExists", lambda w: users.decide_rename_user(w.state, w.user("ada"), "bob")),
    ("userAlreadyExists", lambda w: users.decide_rename_user(w.state, w.user("ada"), "ada")),
    ("lastOrganizationOwner", lambda w: users.decide_delete_user(w.state, w.user("ada"))),
    ("", lambda w: users.decide_create_token(w.user("ada"), token(""), START)),
    ("", lambda w: users.decide_create_token(w.user("ada"), token("x" * 201), START)),
    ("", lambda w: users.decide_create_token(w.user("ada"), token("a\nb"), START)),
    ("", lambda w: users.decide_create_token(w.user("ada"), token("."), START)),
    ("", lambda w: users.decide_create_token(w.user("ada"), token(".."), START)),
    ("invalidTokenExpiry", lambda w: users.decide_create_token(w.user("ada"), expiring(START), START)),
    ("invalidTokenScope", lambda w: users.decide_create_token(w.user("ada"), token("t", "all"), START)),
    ("userTokenDoesNotExist", lambda w: users.decide_delete_token(w.user("ada"), "t")),
    ("linkedAccountAlreadyExists", lambda w: users.decide_add_account(w.state, w.user("ada"), account("la2"))),
    ("linkedAccountAlreadyExists", lambda w: users.decide_add_account(w.state, w.user("bob"), account("la2"))),
    ("linkedAccountDoesNotExist", lambda w: users.decide_remove_account(w.user("bob"), "la")),
    ("invalidOrganizationName", lambda w: new_org(w, "0b9f7f6e3a524f5f9f5c3f6b0f3c2a11")),
    ("organizationAlreadyExists", lambda w: new_org(w, "acme")),
    ("invalidVisibility", lambda w: new_org(w, "new", "secret")),
    ("invalidVisibility", lambda w: organizations.decide_change_organization(w.org("acme"), SECRET)),
    ("invalidRole", lambda w: organizations.decide_set_member(w.org("acme"), w.user("eve"), BOSS)),
    ("lastOrganizationOwner", lambda w: organizations.decide_set_member(w.org("acme"), w.user("ada"), "member")),
    ("lastOrganizationOwner", lambda w: organizations.decide_remove_member(w.org("acme"), w.user("ada"))),
    ("orgMemberDoesNotExist", lambda w: organizations.decide_remove_member(w.org("acme"), w.user("eve"))),
    ("invalidRole", lambda w: invited(w, "eve", "boss")),
    ("orgMemberAlreadyExists", lambda w: invited(w, "bob")),
    ("invitationDoesNotExist", lambda w: organizations.decide_withdraw_invitation(w.org("acme"), w.user("eve"))),
    ("invalidProjectName", lambda w: new_group(w, "a_b")),
    ("invalidVisibility", lambda w: new_group(w, "new", "")),
    ("projectGroupAlreadyExists", lambda w: new_group(w, "tools")),
    ("invalidProjectGroupName", lambda w: changed_group(w, "org/acme/tools", name="")),
    ("invalidProjectGroupName", lambda w: changed_group(w, "org/acme", name="root")),
    ("", lambda w: changed_group(w, "org/acme", parent=w.group("user/ada"))),
    ("", lambda w: changed_group(w, "org/acme/tools", parent=w.group("org/acme/tools"))),
    ("invalidVisibility", lambda w: changed_group(w, "org/acme/tools", visibility="secret")),
    ("", lambda w: project_groups.decide_delete_project_group(w.state, w.group("user/ada"))),
    ("invalidProjectName", lambda w: new_project(w, "")),
    ("", lambda w: new_project(w, visibility="")),
    ("projectAlreadyExists", lambda w: new_project(w, "web", "org/acme/tools")),
    ("", lambda w: new_project(w, repository=replace(MANUAL, kind="svn"))),
    ("invalidRepositoryURL", lambda w: new_project(w, repository=replace(MANUAL, kind="git"))),
    ("remoteSourceDoesNotExist", lambda w: new_project(w, repository=at_gitea(remote_source_id="none"))),
    ("invalidRepoPath", lambda w: new_project(w, repository=at_gitea(repository_path=""))),
    ("linkedAccountDoesNotExist", lambda w: new_project(w, repository=at_gitea(linked_account_id="none"))),
    ("linkedAccountDoesNotExist", lambda w: new_project(other_source(w), repository=at_gitea(remote_source_id="rs2"))),
    (
        "cannotSetMembersCanPerformRunActionsOnUserProject",
        lambda w: new_project(w, parent="user/ada", settings=MEMBERS),
    ),
    ("invalidProjectName", lambda w: changed_project(w, name="a b")),
    ("", lambda w: changed_project(w, visibility="secret")),
    ("invalidRepoPath", lambda w: changed_project(w, repository=at_gitea(repository_id=""))),
    (
        "cannotSetMembersCanPerformRunActionsOnUserProject",
        lambda w: changed_project(w, parent=w.group("user/ada"), members_can_perform_run_actions=True),
    ),
    ("invalidSecretName", lambda w: new_secret(w, "s_1")),
    ("invalidSecretData", lambda w: new_secret(w, data={})),
    ("invalidSecretType", lambda _: secrets.require_secret_data("external", DATA)),
    ("secretDoesNotExist", lambda w: secrets.find_secret(w.state, place(w), "s")),
    ("invalidVariableName", lambda w: new_variable(w, "A_B")),
    ("invalidVariableValues", lambda w: new_variable(w, values=())),
    ("invalidVariableValues", lambda w: new_variable(w, values=(SecretValue("", "a", None),))),
    ("variableDoesNotExist", lambda w: secrets.find_variable(w.state, place(w), "v")),
    ("invalidRemoteSourceName", lambda w: new_source(w, "")),
    ("remoteSourceAlreadyExists", lambda w: new_source(w, "gitea")),
    ("invalidRemoteSourceAPIURL", lambda w: new_source(w, apiurl="")),
    ("invalidRemoteSourceType", lambda w: new_source(w, type="svn")),
    ("invalidRemoteSourceAuthType", lambda w: new_source(w, type="github")),
    ("invalidOauth2ClientID", lambda w: new_source(w, type="gitlab", auth_type="oauth2")),
    ("invalidOauth2ClientSecret", lambda w: new_source(w, auth_type="oauth2", oauth2_client_id="id")),
    ("remoteSourceInUse", lambda w: remote_sources.decide_delete_remote_source(w.state, source(w))),
]


def new_org(w: ConfigWorld, name: str, visibility: Any = "public") -> Any:
    return organizations.decide_create_organization(
        w.state, organization_id="o", root_group_id="g", name=name, visibility=visibility, creator=None
    )


def invited(w: ConfigWorld, user: str, role: Any = "member") -> Any:
    return organizations.decide_invite(w.org("acme"), w.user(user), invitation_id="i", role=role)


def new_group(w: ConfigWorld, name: str, visibility: Any = "public") -> Any:
    parent = w.group("org/acme")
    return project_groups.decide_create_project_group(
        w.state, group_id="g", name=name, parent=parent, visibility=visibility
    )


def changed_group(w: ConfigWorld, path: str, **changes: Any) -> Any:
    return project_groups.decide_change_project_group(w.state, w.group(path), **changes)


def changed_project(w: ConfigWorld, path: str = "org/acme/tools/web", **changes: Any) -> Any:
    return projects.decide_change_project(w.state, w.project(path), **changes)


def other_source(w: ConfigWorld) -> ConfigWorld:
    w.apply(new_source(w))
    return w


def source(w: ConfigWorld) -> RemoteSource:
    return w.state.remote_sources["rs"]


@pytest.mark.parametrize(("code", "request_"), REFUSED)
def test_what_is_refused(code: str, request_: Request) -> None:
    with pytest.raises(RunstreamError) as caught:
        request_(world())
    assert caught.value.code == code
    assert caught.value.kind in (Kind.BAD_REQUEST, Kind.NOT_EXIST)


def test_a_second_invitation_secret_variable_and_token_of_a_name_are_refused() -> None:
    w = world()
    w.apply(invited(w, "eve"))
    w.apply(new_secret(w))
    w.apply(new_variable(w))
    w.apply(users.decide_create_token(w.user("ada"), token("t"), START))
    for code, again in (
        ("invitationAlreadyExists", lambda: invited(w, "eve")),
        ("secretAlreadyExists", lambda: new_secret(w)),
        ("variableAlreadyExists", lambda: new_variable(w)),
        ("userTokenAlreadyExists", lambda: users.decide_create_token(w.user("ada"), token("t", key="t2"), START)),
    ):
        with pytest.raises(BadRequestError) as caught:
            again()
        assert caught.value.code == code
    with pytest.raises(BadRequestError):
        organizations.decide_answer_invitation(w.org("acme"), w.user("eve"), "wait")


def test_what_stays_as_it_is_needs_no_event() -> None:
    w = world()
    w.apply(new_secret(w))
    w.apply(new_variable(w))
    secret, variable = w.state.secrets["secret"], w.state.variables["variable"]
    assert changed_project(w, name="web", visibility="public", repository=MANUAL, default_branch="") == []
    assert changed_group(w, "org/acme/tools", visibility="public") == []
    assert organizations.decide_change_organization(w.org("acme"), "public") == []
    assert organizations.decide_set_member(w.org("acme"), w.user("bob"), "member") == []
    assert users.decide_set_admin(w.user("ada"), admin=False) == []
    assert secrets.decide_change_secret(w.state, secret, name="s") == []
    assert secrets.decide_change_variable(w.state, variable, name="v", values=VALUES) == []
    assert remote_sources.decide_change_remote_source(w.state, source(w), name="gitea", settings=GITEA) == []


def test_users_tokens_and_accounts() -> None:
    w = world()
    w.apply(new_user(w, "new", account=account("la2", remote="8")))
    assert w.state.remote_user("rs", "8") == (w.user("new"), w.user("new").accounts["la2"])
    assert w.state.remote_user("rs", "9") is None
    w.apply(users.decide_set_admin(w.user("new"), admin=True))
    assert w.user("new").admin
    expires = START + timedelta(days=1)
    w.apply(users.decide_create_token(w.user("new"), NewToken("t", "my token", "digest", "read", expires), START))
    found = w.state.token("digest")
    assert found is not None
    assert (found[0].name, found[1].name, found[1].expires_at) == ("new", "my token", expires)
    renewed = AccountCredentials(SEALED, None, None)
    w.apply(
        users.decide_change_account(
            w.user("new"),
            "la2",
            remote_username="x",
            remote_user_avatar_url="y",
            credentials=renewed,
            oauth2_expires_at=expires,
        )
    )
    account_found = w.state.account("la2")
    assert account_found is not None
    assert account_found[1].credentials == renewed
    w.apply(users.decide_delete_token(w.user("new"), "my token"))
    w.apply(users.decide_remove_account(w.user("new"), "la2"))
    assert (w.state.token("digest"), w.state.account("la2")) == (None, None)
    w.apply(users.decide_delete_user(w.state, w.user("new")))
    with pytest.raises(NotExistError):
        w.user("new")


def test_a_deleted_user_leaves_organizations_and_invitations() -> None:
    w = world()
    w.apply(invited(w, "eve", "owner"))
    w.do("create_org", "other", "public", None)
    w.do("set_member", "other", "eve", "member")
    w.apply(
        organizations.decide_invite(w.org("acme"), w.user("bob"), invitation_id="i2", role="owner", members_too=True)
    )
    for name in ("eve", "bob"):
        w.apply(users.decide_delete_user(w.state, w.user(name)))
    assert not w.org("acme").invitations
    assert [*w.org("acme").members] == [w.user("ada").id]
    assert not w.org("other").members


def test_projects_with_each_kind_of_repository_change() -> None:
    w = world()
    w.apply(new_project(w, repository=at_gitea()))
    w.apply(
        changed_project(w, "org/acme/new", visibility="private", pass_vars_to_forked_pr=True, default_branch="main")
    )
    git = replace(MANUAL, kind="git", url="https://git.example.com/x.git")
    w.apply(changed_project(w, "org/acme/new", repository=git, members_can_perform_run_actions=True))
    project = w.project("org/acme/new")
    assert (project.visibility, project.repository, project.settings.default_branch) == ("private", git, "main")
    assert project.settings.members_can_perform_run_actions
    other = Sealed("other", "sealed")
    w.apply([Change("project", project.id, (ProjectWebhookSecretSealed(other),))])
    assert w.project("org/acme/new").webhook_secret == other


def test_secrets_variables_and_remote_sources_change() -> None:
    w = other_source(world())
    w.apply(new_secret(w))
    w.apply(new_variable(w))
    data, values = {"key": SEALED}, (SecretValue("s", "key", None),)
    w.apply(secrets.decide_change_secret(w.state, w.state.secrets["secret"], name="s2", data=data))
    w.apply(secrets.decide_change_variable(w.state, w.state.variables["variable"], name="v2", values=values))
    assert secrets.find_secret(w.state, place(w), "s2").data == data
    assert secrets.find_variable(w.state, place(w), "v2").values == values
    w.apply(secrets.decide_delete_secret(w.state.secrets["secret"]))
    w.apply(secrets.decide_delete_variable(w.state.variables["variable"]))
    assert not [*w.state.secrets, *w.state.variables]
    github = replace(GITEA, type="github", auth_type="oauth2", oauth2_client_id="id", oauth2_client_secret=SEALED)
    other = w.state.remote_sources["rs2"]
    w.apply(remote_sources.decide_change_remote_source(w.state, other, name="github", settings=github))
    assert w.state.remote_sources["rs2"].settings == github
    w.apply(remote_sources.decide_delete_remote_source(w.state, w.state.remote_sources["rs2"]))
    assert [*w.state.remote_sources] == ["rs"]


def test_a_rejected_and_a_withdrawn_invitation_make_no_member() -> None:
    w = world()
    w.apply(invited(w, "eve"))
    w.do("answer", "acme", "eve", "reject")
    w.apply(invited(w, "eve"))
    w.do("withdraw", "acme", "eve")
    w.apply(invited(w, "eve", "owner"))
    w.do("answer", "acme", "eve", "accept")
    assert w.org("acme").members[w.user("eve").id] == "owner"
    w.do("remove_member", "acme", "ada")
    w.do("set_member", "acme", "bob", "owner")
    w.do("change_org", "acme", "private")
    w.do("delete_org", "acme")
    assert not w.state.organizations
    assert {project.name for project in w.state.projects.values()} == {"own"}


def test_a_member_who_is_added_directly_has_no_invitation_left() -> None:
    w = world()
    w.apply(invited(w, "eve"))
    w.do("set_member", "acme", "eve", "member")
    assert not w.org("acme").invitations


@pytest.mark.parametrize(
    "change",
    [
        lambda w: Change("user", w.user("ada").id, (UserCreated("twice"),)),
        lambda _: Change("user", "new", (UserCreated("ada"),)),
        lambda _: Change("secret", "new", (UserCreated("not a secret"),)),
        lambda _: Change("secret", "new", (SecretCreated("s", TreePlace("project", "none"), DATA),)),
        lambda _: Change("variable", "new", (VariableCreated("v", TreePlace("projectgroup", "none"), VALUES),)),
        lambda _: Change("projectgroup", "new", (ProjectGroupCreated("g", GroupParent("org", "none"), "public"),)),
        lambda _: Change("projectgroup", "g", (ProjectGroupCreated("g", GroupParent("projectgroup", "g"), "public"),)),
        lambda w: Change("user", w.user("eve").id, (_token("a"), _token("b"))),
        lambda w: Change("projectgroup", w.group("org/acme").id, (_deleted(w),)),
        lambda w: _into_its_child(w),
    ],
)
def test_an_event_that_does_not_fit_changes_nothing(change: Callable[[ConfigWorld], Change]) -> None:
    w = world()
    one = change(w)
    before = [*w.state.everything()]
    with pytest.raises((Unfit, AssertionError)):
        w.state.apply(one.kind, one.id, one.events, START)
    assert [*w.state.everything()] == before


def _token(key: str) -> UserTokenCreated:
    return UserTokenCreated(key, key, "one digest", "read", None)


def _into_its_child(w: ConfigWorld) -> Change:
    w.apply(
        project_groups.decide_create_project_group(
            w.state, group_id="child", name="child", parent=w.group("org/acme/tools"), visibility="public"
        )
    )
    moved = ProjectGroupMoved("x", GroupParent("projectgroup", "child"))
    return Change("projectgroup", w.group("org/acme/tools").id, (moved,))


def _deleted(w: ConfigWorld) -> Any:
    return project_groups.decide_delete_project_group(w.state, w.group("org/acme/tools"))[-1].events[0]


def test_things_are_renamed_and_moved_with_what_is_below_them() -> None:
    w = world()
    w.apply(users.decide_rename_user(w.state, w.user("ada"), "ada-2"))
    w.apply(changed_project(w, "user/ada-2/own", name="web", parent=w.group("org/acme")))
    w.apply(changed_group(w, "org/acme/tools", name="kit", parent=w.group("user/bob"), visibility="private"))
    w.apply(changed_group(w, "org/acme", visibility="private"))
    assert w.project("org/acme/web").name == w.project("user/bob/kit/web").name == "web"
    assert not w.state.names("projectgroup", w.group("org/acme").id)


def test_what_nobody_has_is_unknown() -> None:
    state = world().state
    assert (state.token("none"), state.find("secret", "none")) == (None, None)


def test_a_deleted_project_takes_its_secrets_and_variables_along() -> None:
    w = world()
    w.apply(new_secret(w))
    w.apply(new_variable(w))
    variable = w.state.variables["variable"]
    w.apply(secrets.decide_change_variable(w.state, variable, name="v2"))
    w.apply(projects.decide_delete_project(w.state, w.project("org/acme/tools/web")))
    assert not [*w.state.secrets, *w.state.variables]


def test_no_claim_is_made_twice_by_one_thing() -> None:
    w = world()
    with pytest.raises(Unfit, match="two things of one name"):
        w.state.apply("user", w.user("eve").id, (_token("a"), _token("b")), START)


@pytest.mark.parametrize("moved", ["org/acme/tools", "org/acme/tools/web"])
def test_what_lets_members_act_on_runs_stays_in_an_organization(moved: str) -> None:
    w = world()
    w.apply(changed_project(w, "org/acme/tools/web", members_can_perform_run_actions=True))
    w.do("create_group", "org/acme", "above", "public")
    w.apply(changed_group(w, "org/acme/tools", parent=w.group("org/acme/above")))
    moved = moved.replace("acme/", "acme/above/")
    change = changed_group if moved.endswith("tools") else changed_project
    with pytest.raises(BadRequestError) as caught:
        change(w, moved, parent=w.group("user/ada"))
    assert caught.value.code == "cannotSetMembersCanPerformRunActionsOnUserProject"
    with pytest.raises(BadRequestError):
        changed_group(w, "org/acme/above", parent=w.group("user/ada"))


DEEP = 1200
"""Groups in each other: more than calls on Python's stack."""


def deep() -> tuple[ConfigWorld, list[str]]:
    """A world in which ada has groups in each other, the lowest with a project, a secret and a variable."""
    w = world()
    parent, ids = w.group("user/ada").id, list[str]()
    for depth in range(DEEP):
        created = ProjectGroupCreated("g", GroupParent("projectgroup", parent), "public")
        ids.append(f"deep-{depth}")
        w.apply([Change("projectgroup", ids[-1], (created,))])
        parent = ids[-1]
    lowest = w.state.groups[parent]
    w.apply(
        projects.decide_create_project(
            w.state,
            project_id="low",
            name="low",
            parent=lowest,
            visibility="public",
            repository=MANUAL,
            settings=SETTINGS,
            webhook_secret=SEALED,
        )
    )
    w.apply(
        secrets.decide_create_secret(w.state, secret_id="s", parent=TreePlace("project", "low"), name="s", data=DATA)
    )
    return w, ids


@pytest.mark.parametrize("what", ["group", "user", "organization"])
def test_a_tree_of_any_depth_is_read_moved_and_deleted(what: str) -> None:
    w, ids = deep()
    top, low = w.state.groups[ids[0]], w.state.projects["low"]
    assert path_of(w.state, low).count("/") == DEEP + 2
    assert global_visibility(w.state, low) == "public"
    assert [one.name for one in secrets_of(w.state, low, tree=True)] == ["s"]
    with pytest.raises(BadRequestError, match="inside itself"):
        project_groups.decide_change_project_group(w.state, top, parent=w.state.groups[ids[-1]])
    if what == "organization":
        w.apply(project_groups.decide_change_project_group(w.state, top, parent=w.group("org/acme")))
        w.apply(organizations.decide_delete_organization(w.state, w.org("acme")))
    elif what == "user":
        w.apply(organizations.decide_set_member(w.org("acme"), w.user("bob"), "owner"))
        w.apply(users.decide_delete_user(w.state, w.user("ada")))
    else:
        w.apply(project_groups.decide_delete_project_group(w.state, top))
    assert not {*ids} & w.state.groups.keys()
    assert "low" not in w.state.projects
    assert "s" not in w.state.secrets
