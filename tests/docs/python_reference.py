"""docs/reference/python.md is generated from the client itself: `python -m tests.docs.python_reference` writes it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from runstream import client
from runstream.client import Client
from runstream.client.audit import Audit
from runstream.client.following import Events, Logs
from runstream.client.operations import Executors, MaintenanceMode, Snapshots
from runstream.client.organizations import Organizations
from runstream.client.projects import ProjectGroups, Projects
from runstream.client.remote_sources import RemoteSources
from runstream.client.runs import Runs
from runstream.client.secrets import Secrets, Variables
from runstream.client.users import Users

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "python.md"
_BEGIN = """\
# Python client

[Publish from Python](../how-to/publish-from-python.md) shows how it is used. This page is generated from the client.

Everything is asynchronous and comes from `runstream.client`. Every method raises `ClientError` and nothing else of its
own. Times are aware datetimes in UTC. A method that yields (an asynchronous generator) reads while you iterate; leave
its loop whenever you like.
"""
_SUBJECTS = {
    "runs": Runs,
    "logs": Logs,
    "events": Events,
    "executors": Executors,
    "snapshots": Snapshots,
    "maintenance": MaintenanceMode,
    "users": Users,
    "organizations": Organizations,
    "project_groups": ProjectGroups,
    "projects": Projects,
    "secrets": Secrets,
    "variables": Variables,
    "remote_sources": RemoteSources,
    "audit": Audit,
}


def reference() -> str:
    """The whole page."""
    lines = [_BEGIN, "## Client\n", *_signature("Client", Client), *_methods("Client", Client)]
    for name, kind in _SUBJECTS.items():
        lines += [f"## client.{name}\n", *_methods(f"client.{name}", kind)]
    lines += ["## Types\n"]
    for name in client.__all__:
        if name != "Client":
            lines += [f"- `{name}`: {_first_sentence(getattr(client, name))}"]
    return "\n".join(lines).rstrip("\n") + "\n"


def _methods(path: str, kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        if not name.startswith("_") and not isinstance(member, property):
            yield f"### {path}.{name}\n"
            yield from _signature(name, getattr(kind, name))


def _signature(name: str, called: object) -> Iterator[str]:
    assert callable(called)
    signature = inspect.signature(called)
    own = [p for p in signature.parameters.values() if p.name != "self"]
    returned = "" if isinstance(called, type) else f" -> {signature.return_annotation}"
    listed = "".join(f"    {text},\n" for text in _parameters(own))
    yield f"```text\n{name}({f'{chr(10)}{listed}' if listed else ''}){returned}\n```\n"
    yield f"{inspect.getdoc(called) or ''}\n"


def _parameters(parameters: list[inspect.Parameter]) -> Iterator[str]:
    starred = False
    for each in parameters:
        if each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD) and not starred:
            starred = True
            yield "*"
        if each.kind is each.VAR_KEYWORD:
            shared = getattr(client, str(each.annotation).removeprefix("Unpack[").removesuffix("]"))
            yield from (f"{name}: {one.__forward_arg__} = ..." for name, one in inspect.get_annotations(shared).items())
            continue
        value = getattr(each.default, "__name__", repr(each.default))
        default = "" if each.default is each.empty else f" = {value}"
        yield f"{each.name}: {each.annotation}{default}"


def _first_sentence(kind: type) -> str:
    text = " ".join((inspect.getdoc(kind) or "").split())
    return text.partition(". ")[0].rstrip(".") + "."


if __name__ == "__main__":
    REFERENCE.write_text(reference())
