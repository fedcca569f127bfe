"""Failed logins are limited by address, and what is valid works nevertheless."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from runstream.errors import NotExistError, UnauthorizedError
from runstream.gateway.failed_logins import MAX_ADDRESSES, MAX_FAILURES, FailedLogins, address_of
from tests.gateway.config_world import V1, ConfigWorld, config_world
from tests.gateway.owners import Owners
from tests.gateway.world import TOKEN


@pytest.fixture
async def w() -> AsyncIterator[ConfigWorld]:
    async with config_world() as w:
        await w.user("ada")
        yield w


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"git:{password}".encode()).decode()


WRONG: dict[str, Callable[[], str]] = {
    "malformed": lambda: "token x",
    "bearer": lambda: "Bearer x",
    "another scheme": lambda: basic("x"),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_failed_tokens_are_limited_and_valid_ones_are_not(w: ConfigWorld, kind: str) -> None:
    wrong = WRONG[kind]
    answers = [await w.ask("", "GET", "/user", headers={"Authorization": wrong()}) for _ in range(MAX_FAILURES + 1)]
    assert [one.status_code for one in answers] == [401] * MAX_FAILURES + [429]
    assert answers[-1].json()[0]["code"] == "tooManyFailedLogins"
    assert answers[-1].headers["retry-after"] == "300"
    assert (await w.ask("ada", "GET", "/user")).status_code == 200
    assert (await w.ask("", "GET", "/remotesources")).status_code == 200


async def test_what_worked_once_is_401_at_any_time_and_counts_for_nothing(w: ConfigWorld) -> None:
    await w.user("eve")
    revoked = (await w.done("ada", "POST", "/users/ada/tokens", {"token_name": "r"}))["token"]
    begun = await w.http.post(f"{V1}/auth/session", json={"token": revoked})
    cookies = [one.partition(";")[0] for one in begun.headers.get_list("set-cookie")]
    w.http.cookies.clear()
    await w.done("ada", "DELETE", "/users/ada/tokens/r")
    deleted = w.tokens["eve"]
    await w.done("admin", "DELETE", "/users/eve")
    stale = [
        *({"Authorization": f"token {one}"} for one in (revoked, deleted, await w.expired_token("ada"))),
        {"Cookie": "; ".join(cookies)},
    ]
    for _ in range(MAX_FAILURES):
        for headers in stale:
            assert (await w.ask("", "GET", "/orgs", headers=headers)).status_code == 401
    wrong = {"Authorization": "token x"}
    answers = [(await w.ask("", "GET", "/orgs", headers=wrong)).status_code for _ in range(MAX_FAILURES + 1)]
    assert answers == [401] * MAX_FAILURES + [429]
    codes = [(await w.ask("", "GET", "/orgs", headers=headers)).json()[0]["code"] for headers in stale]
    assert codes == ["unknownToken", "unknownToken", "tokenExpired", "sessionEnded"]


async def test_requests_without_credentials_and_refusals_of_permission_are_no_failed_logins(w: ConfigWorld) -> None:
    for _ in range(MAX_FAILURES + 1):
        assert (await w.ask("", "GET", "/user")).status_code == 401
        assert (await w.ask("ada", "GET", "/users")).status_code == 401
    assert (await w.ask("", "GET", "/user", headers={"Authorization": "token x"})).status_code == 401


async def test_cookies_with_another_secret_are_limited(w: ConfigWorld) -> None:
    link = await w.done("ada", "POST", "/auth/loginlink", {})
    token = link["url"].partition("#")[2]
    answer = await w.http.post("http://gateway/api/v1alpha/auth/session", json={"token": token})
    cookies = dict(one.partition(";")[0].split("=", 1) for one in answer.headers.get_list("set-cookie"))
    good = "; ".join(f"{name}={value}" for name, value in cookies.items())
    bad = good.replace(cookies["secondarysession"], "guessed")
    w.http.cookies.clear()
    statuses = [(await w.ask("", "GET", "/user", headers={"Cookie": bad})).status_code for _ in range(MAX_FAILURES + 1)]
    assert statuses == [401] * MAX_FAILURES + [429]
    assert (await w.ask("", "GET", "/user", headers={"Cookie": good})).status_code == 200


@pytest.mark.parametrize(("token", "status"), [("short", 429), ("t" * 32, 200)])
async def test_an_admin_token_that_could_be_guessed_is_not_compared_from_a_limited_address(
    token: str, status: int
) -> None:
    async with config_world(token=token) as w:
        w.tokens["admin"] = token
        for _ in range(MAX_FAILURES):
            await w.ask("", "GET", "/users", headers={"Authorization": "token x"})
        assert (await w.ask("admin", "GET", "/users")).status_code == status
        login = await w.http.post("http://gateway/api/v1alpha/auth/session", json={"token": token})
        assert login.status_code == (201 if status == 200 else status)


async def test_passwords_of_git_are_limited(tmp_path: Path) -> None:
    async with Owners.serving(tmp_path) as owners:
        ada, token = await owners.user("ada")
        url = f"{owners.url}/repos/{ada.id}/0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11.git/info/refs"
        async with httpx2.AsyncClient(params={"service": "git-receive-pack"}) as http:
            asked = [await http.get(url, headers={"Authorization": basic("x")}) for _ in range(MAX_FAILURES + 1)]
            assert [one.status_code for one in asked] == [401] * MAX_FAILURES + [429]
            assert (await http.get(url, headers={"Authorization": basic(token)})).status_code == 200
        async with owners.http("x") as client:
            assert (await client.get("/user")).status_code == 429
        async with owners.http(TOKEN) as client:
            assert (await client.get("/users")).status_code == (200 if len(TOKEN) >= 32 else 429)


def test_each_address_has_its_own_limit_and_ipv6_one_for_a_network() -> None:
    assert address_of({"client": ("192.0.2.1", 1)}) == "192.0.2.1"
    assert address_of({"client": ("::ffff:192.0.2.1", 1)}) == "192.0.2.1"
    assert address_of({"client": ("2001:db8::1", 1)}) == address_of({"client": ("2001:db8::ffff:2", 1)})
    assert address_of({"client": ("2001:db8::1", 1)}) != address_of({"client": ("2001:db8:0:1::1", 1)})
    assert address_of({"client": ("fe80::1%eth0", 1)}) == "fe80::/64"
    assert address_of({}) == address_of({"client": None}) == ""


def test_failed_logins_take_bounded_memory() -> None:
    failures, error = FailedLogins(), UnauthorizedError("no", code="invalidToken")
    for number in range(MAX_ADDRESSES + 5):
        assert failures.answer(str(number), error) is error
    assert len(failures) == MAX_ADDRESSES
    other = NotExistError("no", code="invalidToken")
    assert [failures.answer("a", other) for _ in range(20)] == [other] * 20
