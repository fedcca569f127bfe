"""The whole product of actors, things and actions, against the rules as they are told to users."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from msgspec.structs import replace

from runstream.domain.config.permissions import (
    ADMIN_TOKEN,
    ANONYMOUS,
    PERMISSIONS,
    READING,
    RELATIONS,
    RUNNING,
    Action,
    Actor,
    acting_on_runs,
    adding_member,
    inviting,
    owner_of_runs,
    reading,
    reading_runs,
    refusal,
    relations,
    require,
    status,
)
from runstream.errors import HTTP_STATUS, RunstreamError
from tests.domain.config.world import ACME, ConfigWorld

WORLD = ConfigWorld(
    *ACME,
    ("create_user", "root"),
    ("create_group", "org/acme", "hidden", "private"),
    ("create_project", "org/acme/hidden", "web", "public"),
    ("create_group", "user/ada", "hidden", "private"),
    ("create_project", "user/ada", "hidden", "private"),
    ("create_org", "dark", "private", "ada"),
    ("set_member", "dark", "bob", "member"),
)
USERS = {name: WORLD.user(name).id for name in ("ada", "bob", "eve", "root")}
ACTORS = {
    "anonymous": ANONYMOUS,
    "owner": Actor(USERS["ada"]),
    "member": Actor(USERS["bob"]),
    "stranger": Actor(USERS["eve"]),
    "admin": Actor(USERS["root"], admin=True),
    "admin token": ADMIN_TOKEN,
}
OF_ORG: dict[str, Any] = {
    "org/acme": WORLD.org("acme"),
    "org/acme group": WORLD.group("org/acme"),
    "org/acme/tools": WORLD.group("org/acme/tools"),
    "org/acme/tools/web": WORLD.project("org/acme/tools/web"),
    "org/acme/hidden": WORLD.group("org/acme/hidden"),
    "org/acme/hidden/web": WORLD.project("org/acme/hidden/web"),
    "org/dark": WORLD.org("dark"),
    "org/dark group": WORLD.group("org/dark"),
}
OF_USER: dict[str, Any] = {
    "user/ada": WORLD.user("ada"),
    "user/ada group": WORLD.group("user/ada"),
    "user/ada/own": WORLD.project("user/ada/own"),
    "user/ada/hidden group": WORLD.group("user/ada/hidden"),
    "user/ada/hidden": WORLD.project("user/ada/hidden"),
}
LOGGED_IN = {"owner", "member", "stranger", "admin", "admin token"}
OWNERS, OWNING_USERS, ADMINS = {"owner", "admin", "admin token"}, {"owner", "admin"}, {"admin", "admin token"}
RULES: dict[Action, tuple[set[str], dict[str, int]]] = {
    Action.READ_PUBLIC_PROJECT: (LOGGED_IN | {"anonymous"}, {}),
    Action.READ_PRIVATE_USER_PROJECT: (OWNERS | {"member"}, {"anonymous": 403, "stranger": 403}),
    Action.READ_PRIVATE_ORG_PROJECT: (OWNERS | {"member"}, {"anonymous": 403, "stranger": 404}),
    Action.READ_PUBLIC: (LOGGED_IN, {}),
    Action.READ_PRIVATE_USER_GROUP: (OWNERS | {"member"}, {}),
    Action.READ_PRIVATE_ORG: (OWNERS | {"member"}, {"stranger": 404}),
    Action.CREATE_PROJECT: (OWNING_USERS, {"admin token": 400}),
    Action.CREATE_GROUP: (OWNING_USERS, {}),
    Action.CHANGE: (OWNERS, {}),
    Action.MOVE_INTO: (OWNERS, {}),
    Action.LIST_SECRETS: (OWNERS | {"member"}, {}),
    Action.CHANGE_SECRETS: (OWNERS, {}),
    Action.RECONFIGURE: (OWNERS, {}),
    Action.CHANGE_ACCESS: (OWNING_USERS, {}),
    Action.READ_DELIVERIES: (OWNERS, {}),
    Action.CREATE_RUN: (OWNING_USERS, {}),
    Action.READ_PUBLIC_RUN: (LOGGED_IN | {"anonymous"}, {}),
    Action.READ_PRIVATE_USER_RUN: (OWNERS | {"member"}, {"anonymous": 403, "stranger": 403}),
    Action.READ_PRIVATE_ORG_RUN: (OWNERS | {"member"}, {"anonymous": 403, "stranger": 404}),
    Action.READ_DIRECT_RUN: (OWNERS, {"anonymous": 403}),
    Action.ACT_ON_RUN: (OWNERS, {}),
    Action.ACT_ON_MEMBERS_RUN: (OWNERS | {"member"}, {}),
    Action.APPROVE: (OWNING_USERS, {}),
    Action.DELETE_LOGS: (OWNERS, {}),
    Action.CREATE_ORGANIZATION: (LOGGED_IN, {}),
    Action.LIST_ORGANIZATIONS: (LOGGED_IN, {}),
    Action.CHANGE_ORGANIZATION: (OWNERS, {}),
    Action.ADD_MEMBER: (OWNERS, {}),
    Action.ADD_MEMBER_BY_INVITATION: (ADMINS, {"owner": 400}),
    Action.INVITE: (OWNING_USERS, {}),
    Action.INVITE_DIRECT: (set(), dict.fromkeys(LOGGED_IN, 400)),
    Action.READ_INVITATIONS: (OWNING_USERS, {}),
    Action.ANSWER_INVITATION: (LOGGED_IN - {"admin token"}, {}),
    Action.READ_SELF: (LOGGED_IN - {"admin token"}, {}),
    Action.READ_USER: (LOGGED_IN, {}),
    Action.LIST_USERS: (ADMINS, dict.fromkeys(LOGGED_IN, 401)),
    Action.CHANGE_USERS: (ADMINS, {}),
    Action.USER_TOKENS: (OWNERS, {"stranger": 400, "member": 400}),
    Action.LINK_ACCOUNT: ({"owner"}, {"stranger": 400, "member": 400, "admin": 400}),
    Action.LIST_REMOTE_SOURCES: (LOGGED_IN | {"anonymous"}, {}),
    Action.READ_REMOTE_SOURCE: (LOGGED_IN, {}),
    Action.READ_AUDIT: (OWNERS, {}),
    Action.CHANGE_REMOTE_SOURCES: (ADMINS, {}),
    Action.MAINTAIN: (ADMINS, dict.fromkeys(LOGGED_IN, 401)),
    Action.ADMINISTER: (ADMINS, {}),
    Action.BADGE: (LOGGED_IN | {"anonymous"}, {}),
    Action.DIRECT_RUN: ({"owner"}, {"stranger": 401, "member": 401, "admin": 401}),
}
"""Who may, and the statuses of refusals that are neither 401 for anonymous requests nor 403 for others."""


def expected(action: Action, relation: str) -> int:
    allowed, refused = RULES[action]
    if relation in allowed:
        return 200
    return refused.get(relation, 401 if relation == "anonymous" else 403)


def test_every_action_and_relation_has_its_status() -> None:
    assert PERMISSIONS.keys() == RULES.keys() == set(Action)
    for action, relation in product(Action, RELATIONS):
        assert PERMISSIONS[action][relation] == expected(action, relation), (action, relation)


@pytest.mark.parametrize("action", Action, ids=lambda action: action.name)
def test_the_product_of_actors_and_things(action: Action) -> None:
    for (name, actor), (where, thing) in product(ACTORS.items(), (OF_ORG | OF_USER).items()):
        relation = "stranger" if name == "member" and where in OF_USER else name
        wanted = expected(action, relation)
        if relation == "admin":  # an administrator is a stranger to the thing, too, and may do what strangers may
            wanted = 200 if expected(action, "stranger") == 200 else wanted
        assert status(WORLD.state, actor, action, thing) == wanted, (name, where)
        if wanted == 200:
            require(WORLD.state, actor, action, thing)
            continue
        with pytest.raises(RunstreamError) as caught:
            require(WORLD.state, actor, action, thing)
        assert HTTP_STATUS[caught.value.kind] == wanted


@pytest.mark.parametrize(("where", "thing"), [*(OF_ORG | OF_USER).items()])
def test_reading_a_thing_is_the_action_of_its_place(where: str, thing: Any) -> None:
    if where == "user/ada":
        return
    hidden = "hidden" in where or "dark" in where
    assert status(WORLD.state, ACTORS["owner"], reading(WORLD.state, thing), thing) == 200
    strangers = {True: 404 if where.startswith("org") else 403, False: 200}[hidden]
    assert status(WORLD.state, ACTORS["stranger"], reading(WORLD.state, thing), thing) == strangers
    project = where in ("org/acme/tools/web", "org/acme/hidden/web", "user/ada/own", "user/ada/hidden")
    anonymous = (403 if hidden else 200) if project else 401
    assert status(WORLD.state, ANONYMOUS, reading(WORLD.state, thing), thing) == anonymous
    if project:
        action = reading_runs(WORLD.state, thing)
        assert status(WORLD.state, ACTORS["stranger"], action, thing) == strangers
        assert status(WORLD.state, ANONYMOUS, action, thing) == anonymous


def test_an_administrator_who_owns_a_thing_may_do_what_owners_may() -> None:
    ada = Actor(USERS["ada"], admin=True)
    assert relations(WORLD.state, ada, WORLD.user("ada")) == ["owner", "admin"]
    assert status(WORLD.state, ada, Action.DIRECT_RUN, WORLD.user("ada")) == 200
    assert status(WORLD.state, ada, Action.CHANGE_USERS) == 200
    assert relations(WORLD.state, Actor(USERS["ada"]), None) == ["stranger"]


@pytest.mark.parametrize("action", Action, ids=lambda action: action.name)
def test_a_token_allows_what_its_scope_has(action: Action) -> None:
    for scope, allowed in (("read", READING), ("run", RUNNING), ("admin", frozenset(Action))):
        actor = Actor(USERS["ada"], admin=True, scope=scope)  # type: ignore[arg-type]
        may = status(WORLD.state, Actor(USERS["ada"], admin=True), action, WORLD.user("ada"))
        assert status(WORLD.state, actor, action, WORLD.user("ada")) == (
            may if may != 200 or action in allowed else 403
        )
    assert READING < RUNNING


def test_a_user_deleted_since_the_request_came_is_anonymous() -> None:
    deleted = Actor("id-0")
    assert relations(WORLD.state, deleted, WORLD.project("user/ada/own")) == ["anonymous"]
    assert status(WORLD.state, deleted, Action.CREATE_ORGANIZATION) == 401


def test_a_refusal_says_what_to_do() -> None:
    narrow = Actor(USERS["ada"], scope="read")
    with pytest.raises(RunstreamError) as caught:
        require(WORLD.state, narrow, Action.CHANGE, WORLD.project("user/ada/own"))
    assert "scope read" in caught.value.hint
    assert refusal(400, Action.INVITE_DIRECT, None).code == "cannotCreateInvitation"
    assert refusal(400, Action.ADD_MEMBER_BY_INVITATION, None).code == "cannotAddUserToOrganization"
    assert refusal(400, Action.USER_TOKENS, None).code == ""
    hidden = [refusal(404, Action.CHANGE, thing).code for thing in (*OF_ORG.values(), WORLD.user("ada"))]
    assert {"projectDoesNotExist", "projectGroupDoesNotExist", "organizationDoesNotExist", "userDoesNotExist"} == {
        *hidden
    }


@pytest.mark.parametrize(
    ("actor", "action", "thing", "message", "hint"),
    [
        (
            "admin token",
            Action.CREATE_GROUP,
            OF_ORG["org/acme group"],
            "the admin token may not create a group",
            "log in as",
        ),
        ("admin token", Action.CREATE_PROJECT, OF_ORG["org/acme group"], "the admin token may not create", "log in as"),
        ("admin token", Action.READ_SELF, None, "the admin token may not read the user who is logged in", "log in as"),
        ("stranger", Action.CHANGE_USERS, None, "you may not create, rename or delete a user", "ask an administrator"),
        ("stranger", Action.LIST_USERS, None, "you may not list users", "ask an administrator"),
        ("stranger", Action.MAINTAIN, None, "you may not maintain", "ask an administrator"),
        (
            "stranger",
            Action.USER_TOKENS,
            WORLD.user("ada"),
            "you may not manage the tokens",
            "ask the user or an admin",
        ),
        ("admin", Action.LINK_ACCOUNT, WORLD.user("ada"), "you may not link an account", "ask the user"),
        ("member", Action.CHANGE, OF_ORG["org/acme/tools/web"], "you may not change", "ask an owner"),
        ("anonymous", Action.LIST_USERS, None, "to list users", "`runstream login URL`"),
    ],
)
def test_a_refusal_says_who_may(actor: str, action: Action, thing: Any, message: str, hint: str) -> None:
    with pytest.raises(RunstreamError) as caught:
        require(WORLD.state, ACTORS[actor], action, thing)
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint


def test_the_owner_of_runs_follows_from_their_group() -> None:
    web, ada = WORLD.project("org/acme/tools/web"), WORLD.user("ada")
    assert owner_of_runs(WORLD.state, f"/project/{web.id}/branch/main") is web
    assert owner_of_runs(WORLD.state, f"/user/{ada.id}") is ada
    for group in ("", "/", "/project", "/project/none", "/other/x", "/user/none/x"):
        assert owner_of_runs(WORLD.state, group) is None
    assert reading_runs(WORLD.state, ada) is Action.READ_DIRECT_RUN
    assert acting_on_runs(ada) is acting_on_runs(web) is Action.ACT_ON_RUN
    members = replace(web, settings=replace(web.settings, members_can_perform_run_actions=True))
    assert acting_on_runs(members) is Action.ACT_ON_MEMBERS_RUN


def test_the_mode_of_adding_members_picks_the_action() -> None:
    assert (adding_member(direct=True), inviting(direct=True)) == (Action.ADD_MEMBER, Action.INVITE_DIRECT)
    assert (adding_member(direct=False), inviting(direct=False)) == (Action.ADD_MEMBER_BY_INVITATION, Action.INVITE)
