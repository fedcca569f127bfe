"""Tokens and sealed texts of the config service."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runstream.config.run_inputs import inherited_secrets, matching_secret_path, parent_path, run_inputs
from runstream.config.sealed import open_secret, open_text, reseal, seal_secret, seal_text
from runstream.config.tokens import authenticate, digest_of, is_token, new_token
from runstream.domain.config.decisions import projects, remote_sources, users
from runstream.domain.config.decisions.projects import MANUAL
from runstream.domain.config.permissions import Actor
from runstream.domain.config.state import Change
from runstream.errors import InternalError, UnauthorizedError
from runstream.events.run_config import Sealed
from runstream.events.secret import SecretCreated, TreePlace
from runstream.events.user import AccountCredentials
from runstream.events.variable import NamePattern, NamePatterns, SecretValue, ValueCondition, VariableCreated
from runstream.runconfig.refs import RefContext
from runstream.runconfig.variables import resolve
from runstream.sealing import Keyring
from tests.domain.config.test_decisions import GITEA
from tests.domain.config.world import ACME, ConfigWorld
from tests.domain.world import START

OLD, NEW = os.urandom(32), os.urandom(32)
RING = Keyring.of([OLD])
PLACE = TreePlace("project", "p")


def test_a_token_is_recognized_and_only_its_digest_is_kept() -> None:
    text, digest = new_token()
    assert text.startswith("rst_")
    assert is_token(text)
    assert digest == digest_of(text)
    assert text not in digest
    assert len({new_token()[0] for _ in range(50)}) == 50


@given(st.integers(0, 41), st.sampled_from("xyzXYZ019-_"))
def test_a_changed_or_cut_token_is_none(at: int, other: str) -> None:
    text, _ = new_token()
    assert not is_token(text[:at] + text[at + 1 :])
    assert is_token(text[:at] + other + text[at + 1 :]) is (text[at] == other)


def test_a_token_stands_for_its_user_until_it_is_revoked_or_expires() -> None:
    w = ConfigWorld(*ACME)
    text, digest = new_token()
    expires = START + timedelta(days=1)
    w.apply(users.decide_create_token(w.user("ada"), users.NewToken("t", "ci", digest, "run", expires), START))
    assert authenticate(w.state, text, START) == Actor(w.user("ada").id, scope="run")
    with pytest.raises(UnauthorizedError) as caught:
        authenticate(w.state, text, expires)
    assert caught.value.code == "tokenExpired"
    w.apply(users.decide_delete_token(w.user("ada"), "ci"))
    for unknown, code in ((text, "unknownToken"), *((one, "invalidToken") for one in ("", "rst_", "Bearer x"))):
        with pytest.raises(UnauthorizedError) as caught:
            authenticate(w.state, unknown, START)
        assert caught.value.code == code


def secret(data: dict[str, Sealed], key: str = "s", name: str = "s", place: TreePlace = PLACE) -> Change:
    return Change("secret", key, (SecretCreated(name, place, data),))


def test_a_sealed_text_opens_nowhere_else() -> None:
    w = ConfigWorld(*ACME)
    web = TreePlace("project", w.project("org/acme/tools/web").id)
    own = TreePlace("project", w.project("user/ada/own").id)
    data = seal_secret(RING, "s", web, {"key": "hidden", "other": "also"})
    w.apply([secret(data, place=web)])
    assert open_secret(RING, w.state.secrets["s"]) == {"key": "hidden", "other": "also"}
    copies = {
        "another secret": ("s2", "s2", web, data),
        "another place": ("s3", "s3", own, data),
        "another key": ("s4", "s4", web, {"other": data["key"]}),
    }
    for key, name, place, sealed in copies.values():
        w.apply([secret(sealed, key, name, place)])
        with pytest.raises(InternalError, match="copied from another place"):
            open_secret(RING, w.state.secrets[key])
    text = seal_text(RING, "hidden", "project", "p", "webhook_secret")
    assert open_text(RING, text, "project", "p", "webhook_secret") == "hidden"
    assert open_text(RING, None, "project", "p", "webhook_secret") == ""
    with pytest.raises(InternalError):
        open_text(RING, text, "project", "p", "repository.password")


def test_everything_is_sealed_again_with_the_first_key() -> None:
    w = ConfigWorld(*ACME)
    web = w.project("org/acme/tools/web")
    place = TreePlace("project", web.id)
    w.apply([secret(seal_secret(RING, "s", place, {"key": "hidden"}), place=place)])
    client_secret = seal_text(RING, "client", "remotesource", "rs", "oauth2_client_secret")
    oauth2 = replace(GITEA, auth_type="oauth2", oauth2_client_id="id", oauth2_client_secret=client_secret)
    w.apply(remote_sources.decide_create_remote_source(w.state, source_id="rs", name="gitea", settings=oauth2))
    credentials = AccountCredentials(seal_text(RING, "mine", "linkedaccount", "la", "user_access_token"), None, None)
    w.apply(
        users.decide_add_account(
            w.state, w.user("ada"), users.NewAccount("la", "rs", "7", "ada", "", credentials, None)
        )
    )
    password = seal_text(RING, "pass", "project", "new", "password")
    hook = seal_text(RING, "hook", "project", "new", "webhook_secret")
    for thing in ("org/acme/tools/web", "user/ada/own"):
        w.apply(projects.decide_delete_project(w.state, w.project(thing)))
    w.apply(
        projects.decide_create_project(
            w.state,
            project_id="new",
            name="new",
            parent=w.group("org/acme"),
            visibility="public",
            repository=replace(MANUAL, kind="git", url="https://x", password=password),
            settings=web.settings,
            webhook_secret=hook,
        )
    )
    place = TreePlace("project", "new")
    w.apply([secret(seal_secret(RING, "s", place, {"key": "hidden"}), place=place)])
    both, new = Keyring.of([NEW, OLD]), Keyring.of([NEW])
    changes = reseal(w.state, both)
    assert {(one.kind, one.id) for one in changes} == {
        ("secret", "s"),
        ("remotesource", "rs"),
        ("user", w.user("ada").id),
        ("project", "new"),
    }
    w.apply(changes)
    assert reseal(w.state, both) == reseal(w.state, new) == []
    project = w.state.projects["new"]
    assert open_secret(new, w.state.secrets["s"]) == {"key": "hidden"}
    assert open_text(new, project.repository.password, "project", "new", "password") == "pass"
    assert open_text(new, project.webhook_secret, "project", "new", "webhook_secret") == "hook"
    account = w.user("ada").accounts["la"].credentials.user_access_token
    assert open_text(new, account, "linkedaccount", "la", "user_access_token") == "mine"
    source = w.state.remote_sources["rs"].settings.oauth2_client_secret
    assert open_text(new, source, "remotesource", "rs", "oauth2_client_secret") == "client"
    with pytest.raises(InternalError, match="does not have"):
        reseal(w.state, Keyring.of([os.urandom(32)]))


def test_runs_of_a_project_have_the_nearest_variables_with_secrets_at_or_above_them() -> None:
    w = ConfigWorld(*ACME)
    web = w.project("org/acme/tools/web")
    places = {
        "project": TreePlace("project", web.id),
        "group": TreePlace("projectgroup", w.group("org/acme/tools").id),
        "root": TreePlace("projectgroup", w.group("org/acme").id),
    }
    for where, place in places.items():
        w.apply([secret(seal_secret(RING, where, place, {"key": f"of the {where}"}), where, "s", place)])
    main = ValueCondition(NamePatterns((NamePattern("simple", "main"),), ()), None, None)
    never = ValueCondition(None, NamePatterns((), ()), NamePatterns((NamePattern("regexp", "^x$"),), ()))
    values = {
        "near": ("project", (SecretValue("s", "key", None),)),
        "far": ("root", (SecretValue("s", "key", None),)),
        "of-main": ("group", (SecretValue("s", "none", never), SecretValue("s", "key", main))),
        "unset": ("project", (SecretValue("s", "none", None), SecretValue("s", "key", None))),
    }
    for name, (where, those) in values.items():
        w.apply([Change("variable", name, (VariableCreated(name, places[where], those),))])
    found, resolved = run_inputs(w.state, web, RING), {}
    for branch in ("main", "other"):
        context = RefContext(ref_type="branch", branch=branch, ref=f"refs/heads/{branch}")
        resolved[branch] = resolve(found.variables, found.secrets, context).secrets
    assert resolved["other"] == {"near": "of the project", "far": "of the root"}
    assert resolved["main"] == {**resolved["other"], "of-main": "of the group"}
    far = w.state.variables["far"]
    inherited, far_path = inherited_secrets(w.state, web), parent_path(w.state, far)
    assert matching_secret_path(inherited, far.values[0], far_path) == "org/acme"
    assert matching_secret_path(inherited, SecretValue("none", "key", None), far_path) == ""
