"""References, paths, inheritance and lists."""

from __future__ import annotations

import pytest

from runstream.domain.config.lists import (
    NamePage,
    invitations_of,
    list_members,
    list_organizations,
    list_organizations_of,
    list_remote_sources,
    list_users,
)
from runstream.domain.config.references import (
    find_organization,
    find_owner,
    find_parent_group,
    find_project,
    find_project_group,
    find_remote_source,
    find_user,
    is_parent_path,
    is_same_or_parent_path,
    parent_path_of,
    path_elements,
    place_of,
)
from runstream.domain.config.state import Change
from runstream.domain.config.tree import secrets_of, variables_of
from runstream.errors import BadRequestError, NotExistError
from runstream.events.remote_source import RemoteSourceCreated
from runstream.events.user import UserCreated
from runstream.names import id_of
from tests.domain.config.test_decisions import GITEA
from tests.domain.config.world import ACME, ConfigWorld

ID = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
FORMS = (ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", f"URN:UUID:{ID}")


def world() -> ConfigWorld:
    made = ConfigWorld(*ACME)
    made.apply([Change("user", ID, (UserCreated("by-id"),))])
    made.apply([Change("remotesource", "rs", (RemoteSourceCreated("gitea", GITEA),))])
    return made


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_a_uuid_is_an_id(form: str) -> None:
    assert id_of(form) == ID
    assert find_user(world().state, form).name == "by-id"


@pytest.mark.parametrize("name", ["", "ada", ID[:-1], f"{{{ID}", f"{ID}}}", f"uuid:{ID}"])
def test_anything_else_is_a_name(name: str) -> None:
    assert id_of(name) == ""


def test_names_are_case_sensitive_and_missing_things_say_which() -> None:
    state = world().state
    assert find_remote_source(state, "gitea").id == "rs"
    for find, code in (
        (find_user, "userDoesNotExist"),
        (find_organization, "organizationDoesNotExist"),
        (find_remote_source, "remoteSourceDoesNotExist"),
        (find_project, "projectDoesNotExist"),
        (find_project_group, "projectGroupDoesNotExist"),
        (find_parent_group, "parentProjectGroupDoesNotExist"),
    ):
        with pytest.raises(NotExistError) as caught:
            find(state, "ADA")
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("org/none/tools/web", "organizationDoesNotExist"),
        ("user/none/web", "userDoesNotExist"),
        ("org/acme/none/web", "projectDoesNotExist"),
        ("org/acme/tools/none", "projectDoesNotExist"),
        ("org/acme", "invalidPath"),
        ("team/acme/web", "invalidPath"),
        ("/", "invalidPath"),
    ],
)
def test_a_path_that_leads_nowhere(path: str, code: str) -> None:
    with pytest.raises((NotExistError, BadRequestError)) as caught:
        find_project(world().state, path)
    assert caught.value.code == code


def test_a_missing_part_of_a_parents_path_is_a_missing_parent() -> None:
    for path in ("org/none", "user/none/x", "org/acme/none"):
        with pytest.raises(NotExistError) as caught:
            find_parent_group(world().state, path)
        assert caught.value.code == "parentProjectGroupDoesNotExist"


def test_parts_of_paths() -> None:
    assert path_elements("/a//b/") == ["a", "b"]
    assert is_parent_path("/a", "/a/b")
    assert not is_parent_path("/a", "/a")
    assert is_same_or_parent_path("/a", "a/")
    assert not is_same_or_parent_path("/a/b", "/a/bc")


def test_paths_of_parents() -> None:
    w = world()
    assert parent_path_of(w.state, w.group("org/acme")) == "org/acme"
    assert parent_path_of(w.state, w.group("org/acme/tools")) == "org/acme"
    assert parent_path_of(w.state, w.project("org/acme/tools/web")) == "org/acme/tools"
    for kind, path in (("project", "org/acme/tools/web"), ("projectgroup", "org/acme/tools")):
        thing = w.project(path) if kind == "project" else w.group(path)
        assert place_of(w.state, find_owner(w.state, kind, path)) is thing  # type: ignore[arg-type]


def test_secrets_and_variables_are_inherited_from_the_nearest_place() -> None:
    w = world()
    places = [("project", "org/acme/tools/web"), ("projectgroup", "org/acme/tools"), ("projectgroup", "org/acme")]
    for sort in ("secret", "variable"):
        for names, place in zip(("b", "ab", "abc"), places, strict=True):
            for name in reversed(names):
                w.do("create_value", sort, *place, name)
    web, tools = w.project("org/acme/tools/web"), w.group("org/acme/tools")
    for things in (secrets_of, variables_of):
        assert [one.name for one in things(w.state, web)] == ["b"]
        assert [one.name for one in things(w.state, web, tree=True)] == ["b", "a", "b", "a", "b", "c"]
        nearest = things(w.state, web, tree=True, remove_overridden=True)
        assert [(one.name, one.parent.kind) for one in nearest] == [
            ("b", "project"),
            ("a", "projectgroup"),
            ("c", "projectgroup"),
        ]
        assert [one.name for one in things(w.state, tools, tree=True, remove_overridden=True)] == ["a", "b", "c"]


def test_lists_are_pages_by_name() -> None:
    w = world()
    for number in range(3):
        w.do("create_org", f"o{number}", "private", "bob")
    w.do("invite", "o1", "eve", "member")
    w.do("invite", "o0", "eve", "member")
    names = [user.name for user in list_users(w.state, NamePage())[0]]
    assert names == ["ada", "bob", "by-id", "eve"]
    found, more = list_users(w.state, NamePage("ada", 2))
    assert ([user.name for user in found], more) == (["bob", "by-id"], True)
    found, more = list_users(w.state, NamePage("bob", 2, descending=True))
    assert ([user.name for user in found], more) == (["ada"], False)
    assert [one.name for one in list_organizations(w.state, NamePage())[0]] == ["acme"]
    assert len(list_organizations(w.state, NamePage(), ("public", "private"))[0]) == 4
    members, _ = list_members(w.state, w.org("acme"), NamePage())
    assert [(user.name, role) for user, role in members] == [("ada", "owner"), ("bob", "member")]
    orgs, more = list_organizations_of(w.state, w.user("bob"), NamePage(limit=2))
    assert ([(one.name, role) for one, role in orgs], more) == ([("acme", "member"), ("o0", "owner")], True)
    assert [one.name for one in invitations_of(w.state, w.user("eve"))] == ["o0", "o1"]
    assert [one.name for one in list_remote_sources(w.state, NamePage())[0]] == ["gitea"]
