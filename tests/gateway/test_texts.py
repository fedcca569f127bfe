"""Every text of a request is bounded, and every name in it can be shown: refused with its place, size and bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from runstream.gateway import requests
from runstream.gateway.requests import MaintenanceBody
from runstream.limits import MAX_NAME_BYTES, MAX_TEXT_BYTES
from tests.gateway.world import World, run_body, task

BODIES: tuple[type[msgspec.Struct], ...] = (
    *(one for one in vars(requests).values() if isinstance(one, type) and issubclass(one, requests.Body)),
    MaintenanceBody,
)
FILE = {"name": "config.yml", "content": "runs: [{name: r, tasks: []}]"}


def _unbounded(kind: inspect.Type, path: str) -> Iterator[str]:
    match kind:
        case inspect.Metadata(type=inspect.StrType(), extra={"bytes": int()}):
            return
        case inspect.Metadata(type=inner):
            yield from _unbounded(inner, path)
        case inspect.StrType() | inspect.AnyType() | inspect.BytesType():
            yield path
        case inspect.StructType(fields=fields):
            for field in fields:
                yield from _unbounded(field.type, f"{path}.{field.name}")
        case inspect.DictType(key_type=key, value_type=value):
            yield from _unbounded(key, f"{path}[key]")
            yield from _unbounded(value, f"{path}[]")
        case inspect.ListType(item_type=item):
            yield from _unbounded(item, f"{path}[]")
        case inspect.UnionType(types=types):
            for one in types:
                yield from _unbounded(one, path)


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
def test_each_text_of_a_body_has_a_bound(kind: type[msgspec.Struct]) -> None:
    assert not list(_unbounded(inspect.type_info(kind), "$"))


def _with_step(**fields: Any) -> dict[str, Any]:
    steps = [{"type": "run", "command": "true"} | fields]
    return run_body(run_config_tasks={"t1": task("t1") | {"steps": steps}})


BAD = "a\x1b[31mb"
UNSHOWN: list[tuple[str, str, dict[str, Any]]] = [
    ("/runs", "$.name", run_body(name=BAD)),
    ("/runs", "$.group", run_body(group=f"/user/admin/branch/{BAD}")),
    ("/runs", "$.annotations", run_body(annotations={BAD: "v"})),
    ("/runs", "$.environment", run_body(environment={BAD: "v"})),
    ("/runs", "$.cache_group", run_body(cache_group=BAD)),
    ("/runs", "$.run_config_tasks['t1'].name", run_body(run_config_tasks={"t1": task(BAD)})),
    ("/runs", "$.run_config_tasks['t1'].name", run_body(run_config_tasks={"t1": task("  ")})),
    ("/runs", "$.run_config_tasks['t1'].steps[0].name", _with_step(name=BAD)),
    ("/runs", "$.run_config_tasks['t1'].steps[0].environment", _with_step(environment={BAD: "v"})),
    ("/createruns", "$.group", {"config": FILE, "group": f"/user/admin/{BAD}"}),
    ("/createruns", "$.annotations", {"config": FILE, "annotations": {BAD: "v"}}),
    ("/createruns", "$.variables", {"config": FILE, "variables": {BAD: "v"}}),
]


@pytest.mark.parametrize(("route", "path", "body"), UNSHOWN)
async def test_a_name_that_cannot_be_shown_is_refused_with_its_place(
    route: str, path: str, body: dict[str, Any]
) -> None:
    async with World.make().http() as http:
        answer = await http.post(route, json=body)
        assert (answer.status_code, answer.json()[0]["code"]) == (400, "invalidName")
        assert path in answer.json()[0]["message"]
        assert "\x1b" not in answer.json()[0]["message"]


@pytest.mark.parametrize(
    "route",
    [
        "/runs?name=%00",
        "/runs?group=a%00b",
        "/runs/a%00b",
        "/projects/org%2Facme%00",
        "/executors?at_least=1%00",
        "/%00",
    ],
)
async def test_nul_in_a_path_or_query_is_refused_at_the_edge(route: str) -> None:
    world = World.make()
    async with world.http() as http:
        answer = await http.get(route)
    assert (answer.status_code, answer.json()[0]["code"]) == (400, "nulCharacter")
    assert not world.reads.queries


LONG = "x" * (4 * MAX_TEXT_BYTES + 1)


@pytest.mark.parametrize(
    ("route", "path", "body"),
    [
        ("/runs", "$.annotations['a']", run_body(annotations={"a": LONG})),
        ("/runs", "$.annotations", run_body(annotations={LONG: "a"})),
        ("/runs", "$.cache_group", run_body(cache_group=LONG)),
        ("/runs", "$.setup_errors[0]", run_body(setup_errors=[LONG])),
        ("/runs", "$.run_config_tasks['t1'].steps[0].command", _with_step(command=LONG)),
        ("/runs", "$.run_config_tasks['t1'].steps[0].name", _with_step(name="é" * (MAX_NAME_BYTES // 2 + 1))),
        ("/createruns", "$.message", {"config": FILE, "message": LONG}),
        ("/createruns", "$.variables['a']", {"config": FILE, "variables": {"a": LONG}}),
    ],
)
async def test_a_text_that_is_too_long_is_refused_with_its_place_and_size(
    route: str, path: str, body: dict[str, Any]
) -> None:
    async with World.make().http() as http:
        answer = await http.post(route, json=body)
        error = answer.json()[0]
        assert (answer.status_code, error["code"]) == (400, "textTooLong")
        assert path in error["message"]
        assert error["details"]["size"] > error["details"]["limit"]
