"""Linked accounts, logins and registrations by OAuth2, over a fake of each git host; and what a callback refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import msgspec
import pytest

from runstream.config.sealed import open_text
from runstream.events.user import AccountCredentials
from runstream.gateway.oauth2_states import STATE_SECONDS
from tests.gateway.config_world import ConfigWorld, config_world
from tests.gateway.world import KEYRING
from tests.hosts.fake import FakeHost, serving
from tests.hosts.gitea import FakeGitea
from tests.hosts.github import FakeGitHub
from tests.hosts.gitlab import FakeGitLab

HOSTS: tuple[type[FakeHost], ...] = (FakeGitea, FakeGitHub, FakeGitLab)
CALLBACK = "/auth/oauth2/callback"


@dataclass(frozen=True)
class Begun:
    """A browser that is sent to a git host."""

    url: str
    cookie: str

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.url).query).items()}


@dataclass
class OAuth2World:
    """A gateway with the users ada and bob, and a git host with the users octa and otto."""

    w: ConfigWorld
    fake: FakeHost

    async def begin(self, who: str, path: str, **body: str) -> Begun:
        answer = await self.w.ask(who, "POST", path, {"remote_source_name": "host", **body})
        assert answer.status_code == 201, answer.text
        assert [*answer.json()] == ["oauth2_redirect"]
        assert answer.headers["cache-control"] == "no-store"
        self.w.http.cookies.clear()
        return Begun(answer.json()["oauth2_redirect"], answer.headers["set-cookie"].partition(";")[0])

    def agreed(self, begun: Begun, user: str = "octa") -> dict[str, str]:
        """Return the query with which the host sends the browser back."""
        return {"code": self.fake.authorize(user, begun.query["code_challenge"]), "state": begun.query["state"]}

    async def back(self, query: dict[str, str], cookie: str, place: str = f"/api/v1alpha{CALLBACK}") -> httpx2.Response:
        answer = await self.w.http.get(f"http://gateway{place}?{urlencode(query)}", headers={"Cookie": cookie})
        self.w.http.cookies.clear()
        return answer

    async def finished(self, begun: Begun, user: str = "octa") -> Any:
        answer = await self.back(self.agreed(begun, user), begun.cookie)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def code_of(self, query: dict[str, str], cookie: str) -> str:
        answer = await self.back(query, cookie)
        assert answer.is_error, answer.text
        return str(answer.json()[0]["code"])

    async def link(self) -> Any:
        begun = await self.begin("ada", "/users/ada/linkedaccounts")
        return (await self.finished(begun))["response"]["linked_account"]

    def credentials(self, account: str) -> AccountCredentials:
        found = self.w.store.state.account(account)
        assert found is not None
        return found[1].credentials


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FakeHost]]:
    made: dict[str, FakeHost] = {kind.type: kind(tmp_path_factory.mktemp(kind.type)) for kind in HOSTS}
    with ExitStack() as stack:
        for fake in made.values():
            fake.add_user("octa")
            fake.add_user("otto")
            stack.enter_context(serving(fake))
        yield made


@pytest.fixture(params=[kind.type for kind in HOSTS])
async def each(fakes: dict[str, FakeHost], request: pytest.FixtureRequest) -> AsyncIterator[OAuth2World]:
    async with config_world() as w:
        yield await made(w, fakes[request.param])


@pytest.fixture
async def h(fakes: dict[str, FakeHost]) -> AsyncIterator[OAuth2World]:
    async with config_world() as w:
        yield await made(w, fakes["gitea"])


async def made(w: ConfigWorld, fake: FakeHost) -> OAuth2World:
    await w.user("ada")
    await w.user("bob")
    secret = {"oauth_2_client_id": "client", "oauth_2_client_secret": "client-secret"}
    source = {"name": "host", "type": fake.type, "auth_type": "oauth2", "apiurl": fake.url, **secret}
    await w.done("admin", "POST", "/remotesources", source)
    return OAuth2World(w, fake)


async def test_an_account_is_linked_then_logs_in_and_is_unlinked(each: OAuth2World) -> None:
    account = await each.link()
    remote = each.fake.users["octa"]
    assert (account["remote_user_id"], account["remote_username"]) == (str(remote.id), "octa")
    assert account["remote_source_id"] == each.w.store.state.named("remotesource", "", "host")
    first = each.credentials(account["id"])
    opened = {
        name: open_text(KEYRING, getattr(first, name), "linkedaccount", account["id"], name)
        for name in ("oauth2_access_token", "oauth2_refresh_token")
    }
    assert opened["oauth2_access_token"] in remote.tokens
    assert first.user_access_token is None
    begun = await each.begin("", "/auth/login")
    assert begun.query["redirect_uri"] == "http://gateway/oauth2/callback"
    assert begun.query["code_challenge_method"] == "S256"
    answer = await each.back(each.agreed(begun), begun.cookie)
    assert answer.json()["request_type"] == "loginuser"
    assert answer.json()["response"]["user"]["username"] == "ada"
    assert answer.headers["cache-control"] == "no-store"
    cookies = "; ".join(one.partition(";")[0] for one in answer.headers.get_list("set-cookie"))
    assert (await each.w.ask("", "GET", "/user", headers={"Cookie": cookies})).json()["username"] == "ada"
    # The account has the tokens of the last login: a host may end the earlier ones.
    assert each.credentials(account["id"]) != first
    shown = (await each.w.done("ada", "GET", "/user"))["linked_accounts"]
    assert [one["id"] for one in shown] == [account["id"]]
    await each.w.done("ada", "DELETE", f"/users/ada/linkedaccounts/{account['id']}")
    again = await each.begin("", "/auth/login")
    assert await each.code_of(each.agreed(again), again.cookie) == "linkedAccountDoesNotExist"
    written = b"".join(message.data for message in each.w.log.streams[0].messages)
    assert b"LinkedAccountAdded" in written
    assert not [text for text in opened.values() if text.encode() in written]


async def test_a_registration_and_an_authorization(each: OAuth2World) -> None:
    seen = await each.finished(await each.begin("", "/auth/authorize"))
    remote = each.fake.users["octa"]
    info = {
        "ID": str(remote.id),
        "LoginName": "octa",
        "Email": "" if each.fake.type == "github" else "octa@example.com",
    }
    told = {"remote_user_info": info, "remote_source_name": "host", "oauth2_redirect": ""}
    assert seen == {"request_type": "authorize", "response": told}
    made = await each.finished(await each.begin("", "/auth/register", username="eve"))
    assert made == {"request_type": "registeruser", "response": {"oauth2_redirect": ""}}
    login = await each.finished(await each.begin("", "/auth/login"))
    assert login["response"]["user"]["username"] == "eve"
    taken = await each.begin("", "/auth/register", username="eve")
    assert await each.code_of(each.agreed(taken, "otto"), taken.cookie) == "userAlreadyExists"
    linked = await each.begin("ada", "/users/ada/linkedaccounts")
    assert await each.code_of(each.agreed(linked), linked.cookie) == "linkedAccountAlreadyExists"


async def test_the_repositories_of_a_user_with_a_token_that_is_refreshed_once(each: OAuth2World) -> None:
    path = "/user/remoterepos/host"
    asked = await each.w.ask("ada", "GET", path)
    assert (asked.status_code, asked.json()[0]["code"]) == (404, "linkedAccountDoesNotExist")
    repos = [each.fake.add_repo(name, {"octa"}) for name in ("octa/web", "octa/api")]
    try:
        each.w.clock.now = datetime.now(UTC)
        account = await each.link()
        listed = [{"id": str(one.id), "path": one.path} for one in reversed(repos)]
        assert await each.w.done("ada", "GET", path) == listed
        first = each.credentials(account["id"])
        # One refresh serves both: a second one with the same token is refused.
        each.w.clock.now += timedelta(seconds=7200 - 30)
        both = await asyncio.gather(*(each.w.done("ada", "GET", path) for _ in range(2)))
        assert both == [listed, listed]
        assert each.credentials(account["id"]) != first
        each.fake.refresh_tokens.clear()
        each.w.clock.now += timedelta(days=1)
        ended = await each.w.ask("ada", "GET", path)
        assert (ended.status_code, ended.json()[0]["code"]) == (400, "linkedAccountExpired")
        await each.finished(await each.begin("", "/auth/login"))
        each.w.clock.now = datetime.now(UTC)
        assert await each.w.done("ada", "GET", path) == listed
    finally:
        each.fake.repos.clear()


async def test_a_state_works_once(h: OAuth2World) -> None:
    await h.link()
    begun = await h.begin("", "/auth/login")
    await h.finished(begun)
    assert await h.code_of(h.agreed(begun), begun.cookie) == "invalidOAuth2State"


async def test_a_state_of_another_browser_is_refused_and_stays_valid_in_its_own(h: OAuth2World) -> None:
    mine, other = await h.begin("ada", "/users/ada/linkedaccounts"), await h.begin("", "/auth/login")
    back = h.agreed(mine)
    for cookie in ("", other.cookie):
        assert await h.code_of(back, cookie) == "invalidOAuth2State"
    assert (await h.back(back, mine.cookie)).status_code == 200


async def test_a_state_expires(h: OAuth2World) -> None:
    begun = await h.begin("", "/auth/login")
    h.w.clock.now += timedelta(seconds=STATE_SECONDS)
    assert await h.code_of(h.agreed(begun), begun.cookie) == "invalidOAuth2State"


async def test_a_changed_state_is_refused(h: OAuth2World) -> None:
    begun = await h.begin("", "/auth/login")
    query = h.agreed(begun)
    state = query["state"]
    other = KEYRING.seal(msgspec.json.encode({"id": "x"}).decode(), "another place")
    same = KEYRING.seal("{}", "oauth2 state")
    changed = state[:-6] + ("A" if state[-6] != "A" else "B") + state[-5:]
    for text in ("", "x", "x.y", "ä.ö", state[:-4], changed, f"{other.key}.{other.value}", f"{same.key}.{same.value}"):
        assert await h.code_of({**query, "state": text}, begun.cookie) == "invalidOAuth2State"


async def test_a_code_is_of_the_request_that_began(h: OAuth2World) -> None:
    first, second = await h.begin("", "/auth/authorize"), await h.begin("", "/auth/authorize")
    swapped = {**h.agreed(second), "state": first.query["state"]}
    assert await h.code_of(swapped, first.cookie) == "invalidOAuth2Code"
    third = await h.begin("", "/auth/authorize")
    assert await h.code_of({"state": third.query["state"], "error": "access_denied"}, third.cookie) == (
        "invalidOAuth2Code"
    )


async def test_what_the_remote_source_no_longer_allows_is_refused(h: OAuth2World) -> None:
    login, new = await h.begin("", "/auth/login"), await h.begin("", "/auth/register", username="eve")
    await h.w.done("admin", "PUT", "/remotesources/host", {"login_enabled": False, "registration_enabled": False})
    before = len(h.fake.requests)
    for begun in (login, new):
        assert await h.code_of(h.agreed(begun), begun.cookie) == "remoteSourceDisabled"
    for path in ("/auth/login", "/auth/register"):
        answer = await h.w.ask("", "POST", path, {"remote_source_name": "host", "username": "eve"})
        assert (answer.status_code, answer.json()[0]["code"]) == (400, "remoteSourceDisabled")
    assert len(h.fake.requests) == before


async def test_the_host_brings_the_browser_back_to_the_page(h: OAuth2World) -> None:
    async def shown(begun: Begun) -> httpx2.Response:
        return await h.back(h.agreed(begun), begun.cookie, "/oauth2/callback")

    new = await shown(await h.begin("", "/auth/register", username="eve"))
    assert (new.status_code, new.headers["location"]) == (303, "/ui/")
    cookies = "; ".join(one.partition(";")[0] for one in new.headers.get_list("set-cookie"))
    assert (await h.w.ask("", "GET", "/user", headers={"Cookie": cookies})).json()["username"] == "eve"
    login = await shown(await h.begin("", "/auth/login"))
    assert (login.headers["location"], len(login.headers.get_list("set-cookie"))) == ("/ui/", 3)
    begun = await h.begin("ada", "/users/ada/linkedaccounts")
    query = {"state": begun.query["state"], "error": "<b>no</b>"}
    refused = await h.back(query, begun.cookie, "/oauth2/callback")
    assert refused.status_code == 400
    assert "&lt;b&gt;no&lt;/b&gt;" in refused.text
    assert "<b>" not in refused.text
    assert "script-src 'self'" in refused.headers["content-security-policy"]
    assert "set-cookie" not in refused.headers
