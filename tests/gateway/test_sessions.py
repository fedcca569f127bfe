"""Logins of browsers: links, cookies, CSRF, sessions that are renewed and revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from http.cookies import SimpleCookie
from urllib.parse import unquote, urlsplit

import httpx2
import pytest

from runstream.gateway.failed_logins import MAX_FAILURES
from tests.gateway.config_world import V1, ConfigWorld, config_world
from tests.gateway.world import TOKEN

HALF_DAY = timedelta(hours=12)


@pytest.fixture
async def w() -> AsyncIterator[ConfigWorld]:
    async with config_world(cors_origins=("https://ui.example.com",)) as w:
        await w.user("ada")
        yield w


class Browser:
    """A browser with cookies, and the last CSRF token that it was given."""

    def __init__(self, w: ConfigWorld) -> None:
        self.w = w
        self.cookies: dict[str, str] = {}
        self.csrf = ""

    async def send(self, method: str, path: str, body: object = None, **headers: str) -> httpx2.Response:
        sent = {"X-Csrf-Token": self.csrf, **{key.replace("_", "-"): value for key, value in headers.items()}}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self.w.http.request(method, f"{V1}{path}", json=body, headers=sent)
        for text in answer.headers.get_list("set-cookie"):
            self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(text).items()}
        self.csrf = answer.headers.get("x-csrf-token", self.csrf)
        self.w.http.cookies.clear()
        return answer


async def link(w: ConfigWorld, who: str = "admin", name: str = "ada") -> str:
    made = await w.done(who, "POST", "/auth/loginlink", {"username": name})
    parts = urlsplit(made["url"])
    assert (parts.path, parts.query) == ("/ui/login", ""), "a log of a server or proxy would have the secret"
    return unquote(parts.fragment)


async def logged_in(w: ConfigWorld, name: str = "ada") -> Browser:
    browser = Browser(w)
    answer = await browser.send("POST", "/auth/session", {"token": await link(w, "admin", name)})
    assert answer.status_code == 201, answer.text
    return browser


async def test_a_login_link_works_once_and_for_five_minutes(w: ConfigWorld) -> None:
    token = await link(w)
    browser = Browser(w)
    assert (await browser.send("POST", "/auth/session", {"token": token})).json()["user"]["username"] == "ada"
    again = await Browser(w).send("POST", "/auth/session", {"token": token})
    assert (again.status_code, again.json()[0]["code"]) == (401, "invalidLoginLink")
    late = await link(w)
    w.clock.now += timedelta(minutes=5)
    assert (await Browser(w).send("POST", "/auth/session", {"token": late})).status_code == 401
    assert (await browser.send("GET", "/user")).json()["username"] == "ada"


async def test_a_login_link_leads_to_the_exposed_url_whatever_host_the_request_names() -> None:
    async with config_world(exposed_url="https://ci.example.com/") as w:
        await w.user("ada")
        for who in ("ada", "admin"):
            made = await w.ask(who, "POST", "/auth/loginlink", {}, headers={"Host": "evil.example"})
            assert made.json()["url"].startswith("https://ci.example.com/ui/login#")


async def test_a_login_link_of_a_deleted_user_is_not_valid(w: ConfigWorld) -> None:
    token = await link(w)
    await w.done("admin", "DELETE", "/users/ada")
    answer = await Browser(w).send("POST", "/auth/session", {"token": token})
    assert answer.status_code == 401, answer.text


async def test_a_token_logs_in_with_what_it_allows_and_for_as_long_as_it_is_valid(w: ConfigWorld) -> None:
    made = await w.done("admin", "POST", "/users/ada/tokens", {"token_name": "laptop", "scope": "read"})
    reader, admin = Browser(w), Browser(w)
    answer = await reader.send("POST", "/auth/session", {"token": made["token"]})
    assert (answer.status_code, answer.json()["user"]["username"], answer.json()["scope"]) == (201, "ada", "read")
    assert (await reader.send("GET", "/auth/session")).json() == answer.json()
    assert (await reader.send("GET", "/user")).json()["username"] == "ada"
    assert (await reader.send("POST", "/orgs", {"name": "acme", "visibility": "public"})).status_code == 403
    assert (await reader.send("POST", "/auth/loginlink", {})).status_code in (400, 403)
    entered = await admin.send("POST", "/auth/session", {"token": TOKEN})
    assert entered.json() == {"user": None, "admin": True, "scope": "admin"}
    assert (await admin.send("GET", "/users")).status_code == 200
    await w.done("admin", "DELETE", "/users/ada/tokens/laptop")
    assert (await reader.send("GET", "/user")).status_code == 401
    assert (await Browser(w).send("POST", "/auth/session", {"token": made["token"]})).status_code == 401


async def test_the_session_route_says_who_is_logged_in(w: ConfigWorld) -> None:
    assert (await Browser(w).send("GET", "/auth/session")).status_code == 401
    found = (await (await logged_in(w)).send("GET", "/auth/session")).json()
    assert (found["user"]["username"], found["admin"], found["scope"]) == ("ada", False, "admin")


async def test_the_cookies_are_for_this_site_alone(w: ConfigWorld) -> None:
    answer = await w.http.post(f"{V1}/auth/session", json={"token": await link(w)})
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 3
    assert all("SameSite=Strict" in one and "Secure" in one and "Path=/" in one for one in cookies)
    assert "HttpOnly" in next(one for one in cookies if one.startswith("__Host-session="))


async def test_a_request_that_changes_something_needs_the_csrf_token(w: ConfigWorld) -> None:
    browser = await logged_in(w)
    new = {"name": "acme", "visibility": "public"}
    good = browser.csrf
    for forged in ("", "forged", good[:-1]):
        browser.csrf = forged
        answer = await browser.send("POST", "/orgs", new)
        assert (answer.status_code, answer.json()[0]["code"]) == (403, "invalidCsrfToken")
    other = await logged_in(w)
    browser.csrf = other.csrf
    assert (await browser.send("POST", "/orgs", new)).status_code == 403
    assert (await browser.send("GET", "/user")).headers["x-csrf-token"] == good
    browser.csrf = good
    assert (await browser.send("POST", "/orgs", new)).status_code == 201


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        ("same-origin", "", 201),
        ("none", "", 201),
        ("cross-site", "https://evil.example.com", 403),
        ("same-site", "https://other.example.com", 403),
        ("cross-site", "https://ui.example.com", 201),
    ],
)
async def test_a_page_of_another_site_changes_nothing(w: ConfigWorld, site: str, origin: str, status: int) -> None:
    browser = await logged_in(w)
    headers = {"Sec_Fetch_Site": site} | ({"Origin": origin} if origin else {})
    answer = await browser.send("POST", "/orgs", {"name": "acme", "visibility": "public"}, **headers)
    assert answer.status_code == status


async def test_both_cookies_have_to_be_those_of_the_session(w: ConfigWorld) -> None:
    one, other = await logged_in(w), await logged_in(w)
    for name in ("__Host-session", "secondarysession"):
        mixed = Browser(w)
        mixed.cookies = {**one.cookies, name: other.cookies[name]}
        assert (await mixed.send("GET", "/user")).status_code == 401
        mixed.cookies = {key: value for key, value in one.cookies.items() if key != name}
        assert (await mixed.send("GET", "/user")).status_code == 401
        mixed.cookies = {**one.cookies, name: "a.b.*.>"}
        assert (await mixed.send("GET", "/user")).status_code == 401


async def test_a_session_that_is_used_is_renewed_and_another_one_expires(w: ConfigWorld) -> None:
    used, stale = await logged_in(w), await logged_in(w)
    early = await used.send("GET", "/user")
    assert "set-cookie" not in early.headers
    for _ in range(3):
        w.clock.now += HALF_DAY * 0.75
        renewed = await used.send("GET", "/user")
        assert renewed.status_code == 200
        assert "set-cookie" in renewed.headers
    assert (await stale.send("GET", "/user")).status_code == 401
    assert (await stale.send("GET", "/remotesources")).status_code == 200


async def test_sessions_are_listed_and_revoked(w: ConfigWorld) -> None:
    one = await logged_in(w)
    w.clock.now += timedelta(seconds=1)
    other = await logged_in(w)
    listed = (await one.send("GET", "/auth/sessions")).json()
    assert [entry["current"] for entry in listed] == [True, False]
    assert (await one.send("DELETE", f"/auth/sessions/{listed[1]['id']}")).status_code == 204
    assert (await other.send("GET", "/user")).status_code == 401
    assert (await one.send("DELETE", f"/auth/sessions/{listed[1]['id']}")).status_code == 404
    assert (await one.send("DELETE", "/auth/session")).status_code == 204
    assert await w.done("ada", "GET", "/auth/sessions") == []
    await w.user("bob")
    assert (await w.ask("bob", "GET", "/auth/sessions?user=ada")).status_code == 400
    assert (await w.ask("bob", "POST", "/auth/loginlink", {"username": "ada"})).status_code == 400


async def test_a_session_of_the_admin_has_no_user_and_that_of_a_deleted_user_ends(w: ConfigWorld) -> None:
    admin, ada = await logged_in(w, ""), await logged_in(w)
    assert (await admin.send("GET", "/users")).status_code == 200
    assert (await admin.send("GET", "/user")).status_code == 403
    await w.done("admin", "DELETE", "/users/ada")
    gone = await ada.send("GET", "/remotesources/x")
    assert (gone.status_code, gone.json()[0]["code"]) == (401, "sessionEnded")


async def test_failed_logins_are_limited(w: ConfigWorld) -> None:
    statuses = [
        (await Browser(w).send("POST", "/auth/session", {"token": f"x{n}.y"})).status_code
        for n in range(MAX_FAILURES + 1)
    ]
    assert statuses == [401] * MAX_FAILURES + [429]
    refused = await Browser(w).send("POST", "/auth/session", {"token": "x.y"})
    assert (refused.status_code, refused.json()[0]["code"]) == (429, "tooManyFailedLogins")
    assert refused.headers["retry-after"] == "300"
    assert (await Browser(w).send("POST", "/auth/session", {"token": await link(w, "ada")})).status_code == 201


async def test_other_sites_use_the_api_as_the_settings_allow(w: ConfigWorld) -> None:
    asked = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "X-Csrf-Token"}
    for origin, allowed in (("https://ui.example.com", True), ("https://evil.example.com", False)):
        answer = await w.http.request("OPTIONS", f"{V1}/user", headers={"Origin": origin, **asked})
        assert ("access-control-allow-origin" in answer.headers) is allowed
        refused = await w.http.get(f"{V1}/user", headers={"Origin": origin})
        assert refused.status_code == 401
        assert ("access-control-allow-origin" in refused.headers) is allowed
