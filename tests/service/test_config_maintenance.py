"""Maintenance of the service `config` alone: runs go on, and users, projects and secrets come back."""

from __future__ import annotations

from pathlib import Path

import httpx2

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
