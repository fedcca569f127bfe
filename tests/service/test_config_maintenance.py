"""The service `config` by itself: in maintenance, exported, imported, with parked commits, while runs go on."""

from __future__ import annotations

import json
from pathlib import Path

import asyncpg
import httpx2
import nats

from runstream.embedded import NatsServer, PostgresServer
from tests.service.running import a_run, runstream, serving


async def test_config_alone_is_parked_and_comes_back(open_path: Path) -> None:
    folder = open_path / "data"
    async with serving(folder) as service:
        headers = {"Authorization": f"token {(folder / 'token').read_text().strip()}"}
        async with httpx2.AsyncClient(base_url=f"{service.url}/api/v1alpha", headers=headers) as http:
            assert (await http.post("/users", json={"username": "ada"})).status_code == 201
            words = ("--service", "config", "--wait")
            code, _, told = await runstream(
                "--data-dir", str(folder), "maintenance", "enable", *words, "--reason", "moving house"
            )
            assert code == 0, told

            await a_run(folder)
            for method, path, body in (
                ("POST", "/users", {"username": "bob"}),
                ("DELETE", "/users/ada", None),
                ("GET", "/users/ada", None),
            ):
                refused = await http.request(method, path, json=body)
                (error,) = refused.json()
                assert (refused.status_code, error["code"]) == (503, "maintenance")
                assert error["message"].endswith("UTC: moving house")
                assert "--service config" in error["hint"]
            assert (await http.get("/maintenance/runs")).json()["parked"] is False

            code, _, told = await runstream("--data-dir", str(folder), "maintenance", "disable", *words)
            assert code == 0, told
            assert (await http.get("/users/ada")).json()["username"] == "ada"
            assert (await http.post("/users", json={"username": "bob"})).status_code == 201


async def test_config_alone_is_exported_and_imported(open_path: Path) -> None:
    folder, file = open_path / "data", str(open_path / "config.snapshot.tar")

    async def command(*words: str) -> str:
        code, out, told = await runstream("--data-dir", str(folder), *words)
        assert code == 0, told
        return out + told

    async with serving(folder) as service:
        headers = {"Authorization": f"token {(folder / 'token').read_text().strip()}"}
        async with httpx2.AsyncClient(base_url=f"{service.url}/api/v1alpha", headers=headers) as http:
            assert (await http.post("/users", json={"username": "ada"})).status_code == 201
            assert "exported 2 commits" in await command("export", "--service", "config", "-o", file)
            assert "the snapshot is good: 2 commits" in await command("snapshot", "verify", file)
            run = await a_run(folder)
            assert (await http.delete("/users/ada")).status_code == 204

            await command("maintenance", "enable", "--service", "config", "--wait")
            imported = await command("import", file, "--service", "config")
            assert "as epoch 2, in place of 4 commits" in imported
            assert "maintenance disable --service config" in imported
            await command("maintenance", "disable", "--service", "config", "--wait")
            assert (await http.get("/users/ada")).status_code == 200
            assert (await http.post("/users", json={"username": "bob"})).status_code == 201
            assert "import of config.snapshot.tar" in await command("epochs", "list", "--service", "config")
            assert run in await command("run", "list", "-o", "json")
            await command("fsck")
            await through_the_api(service.url, (folder / "token").read_text().strip(), open_path / "api.snapshot.tar")
            assert (await http.get("/users/bob")).status_code == 200
            await command("fsck")


async def through_the_api(url: str, token: str, file: Path) -> None:
    """Export, preview and import by the API alone; nothing but the epoch changes."""

    async def command(*words: str, code: int = 0) -> str:
        status, out, told = await runstream("--url", url, *words, RUNSTREAM_TOKEN=token)
        assert status == code, told
        return out + told

    await command("export", "--service", "runs", "-o", f"{file}.runs")
    assert "exported 4 commits" in await command("export", "--service", "config", "-o", str(file))
    assert "the snapshot is good: 4 commits" in await command("snapshot", "verify", str(file))
    words = ("import", str(file), "--service", "config")
    assert "not in maintenance mode" in await command(*words, code=1)
    await command("maintenance", "enable", "--service", "config", "--wait")
    assert "nothing was changed" in await command(*words, "--dry-run")
    refused = await command("import", f"{file}.runs", "--service", "config", code=1)
    assert "is a snapshot of the service runs, not of config" in refused
    assert "as epoch 3, in place of 4 commits" in await command(*words)
    assert "as epoch 3" in await command("import", "--follow", "--service", "config")
    await command("maintenance", "disable", "--service", "config", "--wait")


async def test_its_rows_are_rebuilt_and_a_parked_commit_is_skipped_while_it_runs(open_path: Path) -> None:
    folder = open_path / "data"

    async def command(*words: str, code: int = 0) -> str:
        status, out, told = await runstream("--data-dir", str(folder), *words)
        assert status == code, told
        return out + told

    async with serving(folder) as service:
        headers = {"Authorization": f"token {(folder / 'token').read_text().strip()}"}
        async with httpx2.AsyncClient(base_url=f"{service.url}/api/v1alpha", headers=headers) as http:
            ada = (await http.post("/users", json={"username": "ada"})).json()["id"]
            client = await nats.connect(NatsServer(folder / "nats").url)
            await client.jetstream().publish(f"runstream.config.1.0.user.{ada}", b"moo")
            await client.close()
            while not (listed := json.loads(await command("parked", "list", "--service", "config", "-o", "json"))):
                continue  # the projector follows the log
            assert [(one["position"], one["aggregate"]) for one in listed] == [("1/0/3", f"user/{ada}")]
            assert await command("parked", "list", "-o", "json") == "[]\n"
            assert "has parked commits at 1/0/3" in await command("doctor", code=1)
            assert "projection config" in await command("status")
            assert "moo" in await command("parked", "show", "1/0/3", "--service", "config")

            connection = await asyncpg.connect(PostgresServer(folder / "postgres").url)
            await connection.execute("UPDATE runstream.config SET name = 'eve' WHERE name = 'ada'")
            await connection.close()
            assert "'eve'" in await command("fsck", code=1)
            assert "made anew as of 1:3" in await command("rebuild", "--service", "config")
            await command("fsck")

            await command("parked", "skip", "1/0/3", "--service", "config", "--reason", "of no use")
            assert "of no use" in await command("parked", "list", "--skipped", "--service", "config")
            assert (await http.put("/users/ada", json={"username": "bea"})).status_code == 200
            while json.loads(await command("parked", "list", "--service", "config", "-o", "json")):
                continue  # the projector begins anew
            await command("fsck")
            assert "leave --at and --into out" in await command("rebuild", "--service", "config", "--into", "x", code=1)
