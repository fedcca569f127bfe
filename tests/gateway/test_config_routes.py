"""Users, organizations, groups, projects, secrets and variables over HTTP."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fastapi.routing import APIRoute

from runstream.gateway.access import LOGIN, PREFIX
from runstream.gateway.app import api_routers
from runstream.gateway.routes.maintenance import export_routes, import_routes, maintenance_routes
from runstream.gateway.routes.operations import operation_routes
from runstream.gateway.routes.storage import storage_routes
from tests.gateway.config_world import config_world
from tests.gateway.world import World


async def test_a_user_creates_an_organization_a_project_and_a_secret_with_a_variable() -> None:
    async with config_world() as w:
        ada = await w.user("ada")
        own = {"id": ada, "username": "ada", "tokens": ["test"], "linked_accounts": [], "admin": False}
        assert await w.done("ada", "GET", "/user") == own
        await w.done("ada", "POST", "/orgs", {"name": "acme", "visibility": "private"})
        new = {"name": "web", "parent_ref": "org/acme", "visibility": "public"}
        group = await w.done("ada", "POST", "/projectgroups", new)
        assert (group["path"], group["global_visibility"]) == ("org/acme/web", "private")
        repository = {"url": "https://ci:hunter2@git.example.com/x.git"}
        site = {"name": "site", "parent_ref": "org/acme/web", "visibility": "public", "repository": repository}
        project = await w.done("ada", "POST", "/projects", site)
        assert project["path"] == "org/acme/web/site"
        assert await w.done("ada", "GET", "/projects/org%2Facme%2Fweb%2Fsite") == project
        secret = {"name": "deploy", "type": "internal", "data": {"key": "hunter2"}}
        await w.done("ada", "POST", "/projectgroups/org%2Facme%2Fweb/secrets", secret)
        value = {"secret_name": "deploy", "secret_var": "key", "when": {"branch": {"include": [{"match": "main"}]}}}
        await w.done("ada", "POST", f"/projects/{project['id']}/variables", {"name": "KEY", "values": [value]})
        (variable,) = await w.done("ada", "GET", "/projects/org%2Facme%2Fweb%2Fsite/variables?tree")
        (shown,) = variable["values"]
        assert shown["matching_secret_parent_path"] == "org/acme/web"
        assert shown["when"] == {"branch": {"include": [{"type": "simple", "match": "main"}]}}
        stored = repr([message for stream in w.log.streams for message in stream.messages])
        assert "deploy" in stored
        assert "hunter2" not in stored
        await w.done("ada", "DELETE", "/orgs/acme")
        assert (await w.ask("ada", "GET", f"/projects/{project['id']}")).status_code == 404


def test_every_route_has_an_entry_in_the_table_of_logins() -> None:
    """FastAPI keeps the routers that are included; those of a service are made here with what they never ask."""
    nothing: Any = SimpleNamespace(control=None)
    world = World.make()
    routers = [
        maintenance_routes(nothing),
        export_routes({}),
        import_routes({}),
        storage_routes(nothing),
        operation_routes(nothing, nothing, nothing),
        *api_routers(world.context),
    ]
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    there = {(method, route.path.removeprefix(PREFIX)) for route in routes for method in route.methods or ()}
    assert there - {*LOGIN} == set()
    assert {route for route in LOGIN if route not in there} == {("GET", "/openapi.json")}
