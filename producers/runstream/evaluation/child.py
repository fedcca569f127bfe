"""The child process that evaluates one program: a request on stdin, its JSON (or its error) on stdout.

It imports as little as it can, because its start is part of every evaluation. Its memory is limited by the kernel;
time and output are its parent's. It opens no file and loads nothing: imports of a program are refused.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from typing import Any

FAILED_EXIT = 1
MEMORY_EXIT = 77
_JSONNET_DEPTH = 500
"""Nested calls: jsonnet's own default."""
_STARLARK_DEPTH = 400
"""Nested calls, each of which takes of the stack of the process."""


def main() -> int:
    """Evaluate what stdin asks for."""
    request: dict[str, Any] = json.load(sys.stdin)
    evaluate: Callable[[dict[str, Any]], str] = {"jsonnet": _jsonnet, "starlark": _starlark}[request["format"]]
    resource.setrlimit(resource.RLIMIT_DATA, (request["memory_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_seconds"],) * 2)  # should its parent die before it
    try:
        text = evaluate(request)
    except MemoryError:
        return MEMORY_EXIT
    except BaseException as error:  # noqa: BLE001  whatever the program provokes, a panic too, is its author's to read
        sys.stdout.write(str(error))
        return FAILED_EXIT
    sys.stdout.write(text)
    return 0


def _jsonnet(request: dict[str, Any]) -> str:
    import _gojsonnet  # type: ignore[import-not-found]  # it has no types

    return str(
        _gojsonnet.evaluate_snippet(
            request["name"],
            request["source"],
            max_stack=_JSONNET_DEPTH,
            tla_codes={"ctx": json.dumps(request["context"])},
            import_callback=_refuse_import,
        )
    )


def _refuse_import(_folder: str, path: str) -> tuple[str, bytes]:
    raise RuntimeError(f"{path} cannot be imported: a configuration is one file")


def _starlark(request: dict[str, Any]) -> str:
    import starlark

    module = starlark.Module()
    built_in = starlark.Globals.extended_by([starlark.LibraryExtension.Print])
    options = starlark.EvalOptions(max_callstack_size=_STARLARK_DEPTH)
    starlark.eval_with(options, module, starlark.parse(request["name"], request["source"], _dialect()), built_in)
    value = module.freeze().call_with(options, "main", request["context"]).value
    if not isinstance(value, dict):
        raise TypeError(f"main returned a {type(value).__name__}, it has to return a dict")
    _require_text_keys(value)
    return json.dumps(value, ensure_ascii=False)


def _dialect() -> Any:
    import starlark

    dialect = starlark.Dialect.standard()
    dialect.enable_lambda = True
    dialect.enable_load = False
    return dialect


def _require_text_keys(value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} of a dict is not a string")
            _require_text_keys(inner)
    elif isinstance(value, list):
        for inner in value:
            _require_text_keys(inner)


if __name__ == "__main__":
    sys.exit(main())
