"""Tables of the reference say what the code says."""

from __future__ import annotations

import ast
import pydoc
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args

from runstream.client import Client
from runstream.domain.why import ReasonCode
from runstream.errors import DEPENDENCY_OF_CODE, HTTP_STATUS
from runstream.gateway.access import PREFIX, WITHOUT_LOGIN
from runstream.gateway.errors import STATUS_OF_CODE
from runstream.gateway.requests import CreateRunsBody
from runstream.service.configuration import KEYS, ServeOptions, load_settings
from runstream.settings import (
    COMPONENTS,
    ExecutorSettings,
    RetainedCaches,
    RetainedRuns,
    RetentionSettings,
    Settings,
)
from runstream.telemetry import metrics
from runstream.telemetry.metrics import Counter, Gauge, Histogram
from tests.docs import python_reference
from tests.docs.blocks import ROOT
from tests.docs.cli_reference import REFERENCE, reference
from tests.docs.settings_reference import REFERENCE as SETTINGS_PAGE
from tests.docs.settings_reference import reference as settings_page
from tests.docs.tables import DOCS, code, rows
from tests.gateway.world import World

SOURCES = {
    path: path.read_text() for root in ("schema", "producers", "consumers") for path in (ROOT / root).rglob("*.py")
}
OPTIONS = {f.name for f in fields(ServeOptions)}
BEFORE_THE_COMMAND = {"data_dir", "token", "detailed_errors"}


def test_commands() -> None:
    assert REFERENCE.read_text() == reference(), "run: python -m tests.docs.cli_reference"


def test_the_python_client() -> None:
    assert python_reference.REFERENCE.read_text() == python_reference.reference(), "run: make docs"


def test_the_table_of_settings_is_made_of_their_declarations() -> None:
    assert SETTINGS_PAGE.read_text() == settings_page(), "run: make docs"


def test_help_of_the_client_shows_what_it_can_do() -> None:
    shown = pydoc.plain(pydoc.render_doc(Client))
    for name, said in {"runs": "Create, restart,", "logs": "Read and follow", "events": "Follow the event"}.items():
        assert re.search(rf"\|  {name}\n \|      {said}", shown), name


def test_settings() -> None:
    told = {
        name: (option, variable, default)
        for (name,), (variable,), option, default in (
            (code(row[0]), code(row[2]), row[1], row[3]) for row in rows("settings.md", "All settings")
        )
    }
    expected = {
        key: (_option(key), f"RUNSTREAM_{key.replace('.', '_').upper()}", _default(key, field)) for key, field in _all()
    }
    assert told == expected
    assert set(told) == set(KEYS)


def test_every_variable_that_is_named_is_taken() -> None:
    named = re.findall(r"`(RUNSTREAM_[A-Z_]+)`", (DOCS / "settings.md").read_text())
    for name in {*named} - {f"RUNSTREAM_{key.replace('.', '_').upper()}" for key in KEYS}:
        assert load_settings({}, {name: "x"}, None) == load_settings({}, {}, None), name


def _all() -> Iterator[tuple[str, Field[Any]]]:
    yield from ((f.name, f) for f in fields(Settings) if f.name not in ("executor", "retention", "file"))
    yield from ((f"executor.{f.name}", f) for f in fields(ExecutorSettings))
    yield from ((f"retention.{f.name}", f) for f in fields(RetentionSettings) if f.name not in ("runs", "caches"))
    yield from ((f"retention.runs.{f.name}", f) for f in fields(RetainedRuns))
    yield from ((f"retention.caches.{f.name}", f) for f in fields(RetainedCaches))


def _option(key: str) -> str:
    name = key.removeprefix("executor.")
    if key in BEFORE_THE_COMMAND:
        return f"(`--{name.replace('_', '-')}`)"
    return f"`--{name.replace('_', '-')}`" if name in OPTIONS else "-"


def _default(key: str, field: Field[Any]) -> str:
    if key == "data_dir":
        return "`~/.local/share/runstream`"
    if key == "components":
        return f"`{','.join(COMPONENTS)}`"
    value = field.default if field.default is not MISSING else None
    if value is None or value in ("", ()):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_metrics() -> None:
    told = {name: (row[1], tuple(code(row[2]))) for row in rows("metrics.md", "Metrics") for name in code(row[0])}
    instruments = [each for each in vars(metrics).values() if isinstance(each, Counter | Gauge | Histogram)]
    assert told == {_exported(each): (type(each).__name__.lower(), each.labels) for each in instruments}


def _exported(instrument: Counter | Gauge | Histogram) -> str:
    unit = "_seconds" if instrument.unit == "s" else ""
    return f"{instrument.name.replace('.', '_')}{unit}{'_total' if isinstance(instrument, Counter) else ''}"


def test_kinds_of_errors() -> None:
    told = {name: int(row[1]) for row in rows("errors.md", "Kinds") for name in code(row[0])}
    assert told == {kind.value: status for kind, status in HTTP_STATUS.items()}
    text = (DOCS / "errors.md").read_text()
    own = {name: status for name, status in STATUS_OF_CODE.items() if name not in DEPENDENCY_OF_CODE}
    assert all(f"`{name}` is {status}" in text for name, status in own.items())
    assert all(f"`{dependency}`" in text for dependency in DEPENDENCY_OF_CODE.values())


def test_codes_of_errors() -> None:
    _, _, text = (DOCS / "errors.md").read_text().partition("## Codes")
    told = [name for line in text.splitlines() if line.startswith("| `") for name in code(line.split("|")[1])]
    assert sorted(told) == sorted(set(told))
    used = _used()
    assert set(told) == {found for path, source in SOURCES.items() if _part(path) in used for found in _codes(source)}


def _used() -> set[str]:
    """Return the packages that a process imports; errors of the others never reach a user."""
    used: set[str] = set()
    new = {"service"}
    while new:
        used |= new
        sources = [source for path, source in SOURCES.items() if _part(path) in new]
        new = {name for source in sources for name in re.findall(r"\brunstream\.(\w+)", source)} - used
    return used


def _part(path: Path) -> str:
    """The package or module directly below `runstream`."""
    return path.relative_to(ROOT).parts[2].removesuffix(".py")


def _codes(source: str) -> Iterator[str]:
    """What is given as `code` anywhere in a file, and the codes of refusals."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "code":
            yield from _texts(node.value)
        elif isinstance(node, ast.FunctionDef):
            named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            yield from (text for name, value in named if name.arg == "code" and value for text in _texts(value))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("NotAllowed", "_not_in"):
            yield from (text for argument in node.args[1:] for text in _texts(argument) if re.search("[A-Z]", text))


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (*_texts(node.body), *_texts(node.orelse))
    elif isinstance(node, ast.BoolOp):
        yield from (text for value in node.values for text in _texts(value))


async def test_routes() -> None:
    async with World.make().http() as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    told = {(code(row[0])[0], f"{PREFIX}{code(row[1])[0]}") for row in rows("api.md", "Routes")}
    assert told == {(method.upper(), path) for path, operations in paths.items() for method in operations}


async def test_parameters_of_routes() -> None:
    async with World.make().http() as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    told = {
        (f"{PREFIX}{path}", name)
        for row in rows("api.md", "Parameters")
        for path in code(row[0])
        for name in code(row[1])
    }
    queries = {
        (path, parameter["name"])
        for path, operations in paths.items()
        for parameter in operations.get("get", {}).get("parameters", [])
        if parameter["in"] == "query"
    }
    assert told == {(path, name) for path, name in queries if name != "at_least"}
    assert {path for path, name in queries if name == "at_least"} == {
        f"{PREFIX}{path}"
        for path in (
            *(
                f"/{owners}/{{ref}}/runs{below}"
                for owners in ("projects", "users")
                for below in ("", "/{number}", "/{number}/tasks/{task}")
            ),
            "/runs",
            "/runs/{run_id}",
            "/runs/{run_id}/diff",
            "/runs/{run_id}/failures",
            "/runs/group/{escaped_group}",
            "/executors",
            "/flaky",
            "/groups/{escaped_group}",
        )
    }


async def test_what_needs_no_token() -> None:
    text = (DOCS / "api.md").read_text()
    assert all(f"`{path.removeprefix(PREFIX)}`" in text for _, path in WITHOUT_LOGIN)


def test_reasons_why_a_run_waits() -> None:
    told = [name for row in rows("api.md", "Why a run waits") for name in code(row[0])]
    assert sorted(told) == sorted(get_args(ReasonCode))


def test_fields_of_a_new_run() -> None:
    told = {name for row in rows("api.md", "Create runs from a file") for name in code(row[0])}
    assert told == set(CreateRunsBody.__struct_fields__)


def test_promises_name_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "README.md").read_text())
    assert len(named) > 10
    assert [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text()] == []
