"""Linked accounts, logins and registrations by the password of a git host, over a fake Gitea."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from runstream.config.sealed import open_text
from runstream.gateway.failed_logins import MAX_FAILURES
from tests.gateway.config_world import ConfigWorld, config_world
from tests.gateway.world import KEYRING
from tests.hosts.fake import FakeAnswer, serving
from tests.hosts.gitea import FakeGitea

SOURCE = {"name": "gitea", "type": "gitea", "auth_type": "password"}
LINK = {
    "remote_source_name": "gitea",
    "remote_source_login_name": "octa",
    "remote_source_login_password": "password of octa",
}
LOGIN = {"remote_source_name": "gitea", "login_name": "octa", "password": "password of octa"}


@dataclass
class HostWorld:
    """A gateway with the users ada and bob, and a git host with the users octa and otto."""

    w: ConfigWorld
    fake: FakeGitea

    async def refused(self, who: str, path: str, body: dict[str, Any]) -> tuple[int, str]:
        answer = await self.w.ask(who, "POST", path, body)
        return answer.status_code, answer.json()[0]["code"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGitea]:
    fake = FakeGitea(tmp_path_factory.mktemp("gitea"))
    fake.add_user("octa")
    fake.add_user("otto")
    with serving(fake):
        yield fake


@pytest.fixture
async def h(served: FakeGitea) -> AsyncIterator[HostWorld]:
    served.made.clear()
    served.faults.clear()
    async with config_world() as w:
        await w.user("ada")
        await w.user("bob")
        await w.done("admin", "POST", "/remotesources", {**SOURCE, "apiurl": served.url})
        yield HostWorld(w, served)


async def test_a_linked_account_keeps_a_sealed_token_that_the_host_takes(h: HostWorld) -> None:
    answer = await h.w.done("ada", "POST", "/users/ada/linkedaccounts", LINK)
    source = h.w.store.state.named("remotesource", "", "gitea")
    remote = h.fake.users["octa"]
    account = answer["linked_account"]
    assert answer["oauth2_redirect"] == ""
    assert account == {
        "id": account["id"],
        "remote_user_id": str(remote.id),
        "remote_username": "octa",
        "remote_user_avatar_url": f"{h.fake.url}/avatars/{remote.id}",
        "remote_source_id": source,
    }
    [shown] = (await h.w.done("ada", "GET", "/user"))["linked_accounts"]
    assert (shown["id"], shown["remote_user_name"]) == (account["id"], "octa")
    kept = h.w.store.state.account(account["id"])
    assert kept is not None
    sealed = kept[1].credentials.user_access_token
    token = open_text(KEYRING, sealed, "linkedaccount", account["id"], "user_access_token")
    assert [*h.fake.made.values()] == [token]
    await h.w.done("ada", "DELETE", f"/users/ada/linkedaccounts/{account['id']}")
    assert (await h.w.done("ada", "GET", "/user"))["linked_accounts"] == []


async def test_the_link_of_another_user_stays_and_keeps_its_token(h: HostWorld) -> None:
    await h.w.done("ada", "POST", "/users/ada/linkedaccounts", LINK)
    before = dict(h.fake.made)
    assert await h.refused("bob", "/users/bob/linkedaccounts", LINK) == (400, "linkedAccountAlreadyExists")
    assert await h.refused("ada", "/users/ada/linkedaccounts", LINK) == (400, "linkedAccountAlreadyExists")
    registration = {**LINK, "username": "eve"}
    assert await h.refused("", "/auth/register", registration) == (400, "linkedAccountAlreadyExists")
    assert h.fake.made == before
    assert before


async def test_a_password_logs_the_linked_user_in_and_leaves_no_token(h: HostWorld) -> None:
    assert await h.refused("", "/auth/login", LOGIN) == (404, "linkedAccountDoesNotExist")
    assert h.fake.made == {}
    await h.w.done("ada", "POST", "/users/ada/linkedaccounts", LINK)
    answer = await h.w.ask("", "POST", "/auth/login", LOGIN)
    assert answer.status_code == 201, answer.text
    assert answer.json()["user"]["username"] == "ada"
    assert answer.json()["oauth2_redirect"] == ""
    assert answer.headers["cache-control"] == "no-store"
    cookies = "; ".join(one.partition(";")[0] for one in answer.headers.get_list("set-cookie"))
    h.w.http.cookies.clear()
    asked = await h.w.ask("", "GET", "/user", headers={"Cookie": cookies})
    assert asked.json()["username"] == "ada"
    assert len(h.fake.made) == 1


async def test_a_password_authorizes_a_user_of_the_host(h: HostWorld) -> None:
    answer = await h.w.done("", "POST", "/auth/authorize", LOGIN)
    remote = h.fake.users["octa"]
    info = {"ID": str(remote.id), "LoginName": "octa", "Email": "octa@example.com"}
    assert answer == {"remote_user_info": info, "remote_source_name": "gitea", "oauth2_redirect": ""}
    assert h.fake.made == {}


async def test_a_registration_creates_a_user_who_can_log_in(h: HostWorld) -> None:
    assert await h.w.done("", "POST", "/auth/register", {**LINK, "username": "eve"}) == {"oauth2_redirect": ""}
    assert (await h.w.done("", "POST", "/auth/login", LOGIN))["user"]["username"] == "eve"
    h.w.http.cookies.clear()
    other = {**LINK, "remote_source_login_name": "otto", "remote_source_login_password": "password of otto"}
    assert await h.refused("", "/auth/register", {**other, "username": "eve"}) == (400, "userAlreadyExists")
    assert len(h.fake.made) == 1


async def test_what_the_remote_source_does_not_allow_is_refused_before_the_host_is_asked(h: HostWorld) -> None:
    await h.w.done("admin", "PUT", "/remotesources/gitea", {"login_enabled": False, "registration_enabled": False})
    before = len(h.fake.requests)
    assert await h.refused("", "/auth/login", LOGIN) == (400, "remoteSourceDisabled")
    assert await h.refused("", "/auth/register", {**LINK, "username": "eve"}) == (400, "remoteSourceDisabled")
    assert await h.refused("", "/auth/login", {**LOGIN, "remote_source_name": "x"}) == (404, "remoteSourceDoesNotExist")
    elsewhere = await h.w.ask("", "POST", "/auth/login", LOGIN, headers={"Sec-Fetch-Site": "cross-site"})
    assert (elsewhere.status_code, elsewhere.json()[0]["code"]) == (403, "crossSiteRequest")
    assert len(h.fake.requests) == before


async def test_wrong_passwords_are_limited_and_the_right_one_with_them(h: HostWorld) -> None:
    wrong = {**LOGIN, "password": "wrong"}
    answers = [await h.refused("", "/auth/authorize", wrong) for _ in range(MAX_FAILURES)]
    assert answers == [(401, "invalidPassword")] * MAX_FAILURES
    assert await h.refused("", "/auth/authorize", LOGIN) == (429, "tooManyFailedLogins")
    link = await h.refused("ada", "/users/ada/linkedaccounts", LINK)
    assert link == (429, "tooManyFailedLogins")


async def test_a_token_that_cannot_be_deleted_does_not_hide_the_answer(h: HostWorld) -> None:
    h.fake.faults += [h.fake.answer, h.fake.answer, lambda _: FakeAnswer(403, {"message": "no"})]
    assert await h.refused("", "/auth/login", LOGIN) == (404, "linkedAccountDoesNotExist")
    assert len(h.fake.made) == 1
