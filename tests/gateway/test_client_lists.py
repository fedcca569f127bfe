"""Lists of the client that the service gives in pages, and reads that include the client's own changes."""

from __future__ import annotations

import httpx2
import pytest

from runstream.client import Client, ClientError

USER = {"id": "5f1d0c1e-4b0a-4c55-9b9b-0c2b2f4f1a01", "username": "ada", "tokens": [], "linked_accounts": []}


async def test_a_list_is_read_page_by_page_and_one_that_does_not_end_is_an_error() -> None:
    asked: list[str] = []
    cursors = iter(["one", "two", ""])

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.params.get("cursor", ""))
        return httpx2.Response(200, json=[USER], headers={"X-Agola-Cursor": next(cursors, "stuck")})

    async with Client("http://service", transport=httpx2.MockTransport(answer)) as client:
        users = client.users.list()
        await anext(users)
        assert asked == [""]
        assert len([user async for user in users]) == 2
        assert asked == ["", "one", "two"]
        with pytest.raises(ClientError, match="its cursor repeats"):
            [user async for user in client.users.list()]


async def test_a_read_includes_the_changes_of_its_client() -> None:
    wanted: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        wanted.append(request.headers.get("Runstream-Config-Position", ""))
        position = {"Runstream-Config-Position": "1/0/7"} if request.method == "POST" else {}
        return httpx2.Response(200, json=USER, headers=position)

    async with Client("http://service", transport=httpx2.MockTransport(answer)) as client:
        await client.users.get("ada")
        await client.users.create("ada")
        await client.users.get("a/da")
    assert wanted == ["", "", "1/0/7"]
