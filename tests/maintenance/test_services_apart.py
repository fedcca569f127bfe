"""Maintenance of one service leaves the requests of the other one alone."""

from __future__ import annotations

import re

import httpx2

from runstream.gateway.access import LOGIN
from runstream.gateway.middleware import ALWAYS_BELOW, MaintenanceGate
from tests.gateway.config_world import config_world

OF_CONFIG = re.compile(
    "/(user|users|orgs|projectgroups|remotesources|audit|auth)(/.*)?|/projects(/[^/]+(/(secrets|variables)(/[^/]+)?)?)?"
)
OF_RUNS_BY_OWNER = re.compile("/(users|projects)/[^/]+/runs(/.*)?|/user/createrun")


async def test_in_maintenance_of_runs_all_about_users_projects_and_secrets_goes_on() -> None:
    async with config_world() as w:
        await w.user("ada")
        transport = httpx2.ASGITransport(app=w.world.app_behind(MaintenanceGate(lambda: " since noon")))
        async with httpx2.AsyncClient(transport=transport) as w.http:
            for method, route in LOGIN:
                path = re.sub("{[^}]+}", "x", route)
                if f"/api/v1alpha/{path.split('/')[1]}" in ALWAYS_BELOW or path.endswith("/why"):
                    continue
                answer = await w.ask("admin", method, path, {} if method in ("PUT", "POST") else None)
                goes_on = OF_CONFIG.fullmatch(path) is not None and OF_RUNS_BY_OWNER.fullmatch(path) is None
                assert (answer.status_code != 503) == goes_on, (method, path, answer.text)
            await w.done("ada", "POST", "/orgs", {"name": "acme", "visibility": "private"})
            project = {"name": "a", "parent_ref": "org/acme", "visibility": "public"}
            await w.done("ada", "POST", "/projects", project | {"repository": {"url": "https://git.example/a.git"}})
            assert (await w.done("ada", "GET", "/projects/org%2Facme%2Fa"))["path"] == "org/acme/a"
            creating = await w.ask("ada", "POST", "/projects/org%2Facme%2Fa/createrun", {"branch": "main"})
            assert creating.status_code == 503
