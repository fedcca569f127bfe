"""What a sender must not learn of reads, word for word, like what does not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runstream.domain.config.permissions import OK, Action, Actor, reading, refusal, status
from runstream.domain.config.references import find_organization, find_project, find_project_group, find_user
from runstream.domain.config.seeing import find_seen, missing_thing
from runstream.domain.config.state import ConfigState
from runstream.domain.config.user import User
from runstream.errors import Kind, RunstreamError
from tests.domain.config.world import ACME, ConfigWorld

WORLD = ConfigWorld(
    *ACME,
    ("create_user", "gone"),
    ("create_group", "org/acme", "hidden", "private"),
    ("create_project", "org/acme/hidden", "web", "public"),
    ("create_project", "user/ada", "secret", "private"),
    ("create_org", "dark", "private", "ada"),
    ("create_group", "org/dark", "tools", "public"),
    ("create_project", "org/dark/tools", "web", "public"),
)
OWNER, STRANGER = (Actor(WORLD.user(name).id) for name in ("ada", "eve"))
Find = Callable[[ConfigState, str], Any]


def seen(actor: Actor, find: Find, reference: str) -> Any:
    def refused(thing: Any) -> RunstreamError | None:
        action = Action.READ_USER if isinstance(thing, User) else reading(WORLD.state, thing)
        answer = status(WORLD.state, actor, action, thing)
        return None if answer == OK else refusal(answer, action, thing)

    return find_seen(WORLD.state, find, reference, refused)


def error_of(actor: Actor, find: Find, reference: str) -> RunstreamError:
    with pytest.raises(RunstreamError) as caught:
        seen(actor, find, reference)
    return caught.value


@pytest.mark.parametrize(
    ("find", "reference"),
    [
        (find_user, "bob"),
        (find_organization, "acme"),
        (find_organization, "dark"),
        (find_project_group, "org/acme/hidden"),
        (find_project, "org/acme/hidden/web"),
        (find_project, "org/dark/tools/web"),
        (find_project, "user/ada/secret"),
    ],
)
def test_the_owner_sees_it(find: Find, reference: str) -> None:
    assert seen(OWNER, find, reference) is find(WORLD.state, reference)


@pytest.mark.parametrize(
    ("find", "hidden", "missing"),
    [
        (find_organization, "dark", "none"),
        (find_project_group, "org/dark", "org/none"),
        (find_project_group, "org/dark/tools", "org/none/tools"),
        (find_project, "org/dark/tools/web", "org/none/tools/web"),
        (find_project, "org/dark/tools/other", "org/none/tools/other"),
        (find_project_group, "org/acme/hidden", "org/acme/none"),
        (find_project, "org/acme/hidden/web", "org/acme/hidden/none"),
    ],
)
def test_to_a_stranger_it_reads_like_what_does_not_exist(find: Find, hidden: str, missing: str) -> None:
    refused, absent = error_of(STRANGER, find, hidden), error_of(STRANGER, find, missing)
    assert refused.kind is absent.kind is Kind.NOT_EXIST
    assert (refused.code, refused.hint) == (absent.code, absent.hint)
    there, not_there = set(hidden.split("/")) - {"org"}, set(missing.split("/")) - {"org"}
    (one,), (other,) = there - not_there, not_there - there
    assert refused.message.replace(one, other) == absent.message


def test_what_may_be_known_but_not_read_is_a_refusal() -> None:
    assert error_of(STRANGER, find_project, "user/ada/secret").kind is Kind.FORBIDDEN


def test_an_id_of_something_hidden_is_an_id_of_nothing() -> None:
    key = WORLD.project("org/acme/hidden/web").id
    assert error_of(STRANGER, find_project, key).message == error_of(STRANGER, find_project, "id-0").message.replace(
        "id-0", key
    )


def test_a_missing_user_has_its_own_code() -> None:
    assert missing_thing(WORLD.user("gone"), "gone").code == "userDoesNotExist"
