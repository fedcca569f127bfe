"""`runstream secrets rotate`: everything sealed is sealed with the first key, and the former one is not needed."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import httpx2

from runstream.sealing import Keyring
from tests.service.running import runstream, serving


async def test_what_is_sealed_is_sealed_again_with_the_first_key(open_path: Path) -> None:
    folder = open_path / "data"

    async def rotate(code: int = 0, *words: str) -> str:
        status, out, told = await runstream("--data-dir", str(folder), "secrets", "rotate", *words)
        assert status == code, told
        return out + told

    async with serving(folder) as service:
        headers = {"Authorization": f"token {(folder / 'token').read_text().strip()}"}
        async with httpx2.AsyncClient(base_url=f"{service.url}/api/v1alpha", headers=headers) as http:
            assert (await http.post("/users", json={"username": "ada"})).is_success
            token = (await http.post("/users/ada/tokens", json={"token_name": "t"})).json()["token"]
            for path, body in (
                (
                    "/projects",
                    {
                        "name": "web",
                        "parent_ref": "user/ada",
                        "visibility": "public",
                        "repository": {"url": "https://example.com/x.git", "password": "pass"},
                    },
                ),
                ("/projects/user%2Fada%2Fweb/secrets", {"name": "s", "type": "internal", "data": {"key": "hidden"}}),
            ):
                answer = await http.post(path, json=body, headers={"Authorization": f"token {token}"})
                assert answer.is_success, answer.text
            file = folder / "secrets.key"
            old, new = file.read_text(), base64.b64encode(os.urandom(32)).decode() + "\n"
            assert "everything is sealed with key" in await rotate()

            file.write_text(new + old)
            key = Keyring.read(file).ids[0]
            changed = json.loads(await rotate(0, "-o", "json"))
            assert changed == {"key": key, "changed": {"secret": 1, "project": 1}}
            file.write_text(new)
            assert await rotate() == f"everything is sealed with key {key} already\n"
            file.write_text(old)
            assert f"sealed with key {key}, which this process does not have" in await rotate(1)
            assert (await http.put("/users/ada", json={"username": "bea"})).is_success  # the service has read all of it

            assert (await runstream("--data-dir", str(folder), "maintenance", "enable", "--service", "config"))[0] == 0
            file.write_text(new + old)
            assert "the service config is in maintenance" in await rotate(1)
