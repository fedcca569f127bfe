"""The child process that evaluates one program: a request on stdin, the JSON output or the error on stdout.

It imports little, because its start is part of every evaluation. The kernel limits its memory; the parent its time and
output. It opens no file: the texts that a jsonnet program may import come with the request.
"""

from __future__ import annotations

import json
import posixpath
import resource
import sys
from collections.abc import Callable
from typing import Any

FAILED_EXIT = 1
MEMORY_EXIT = 77
_JSONNET_DEPTH = 500
"""Nested calls: jsonnet's own default."""
_STARLARK_DEPTH = 400
"""Nested calls; each takes some of the process's stack."""


def main() -> int:
    """Evaluate the request on stdin; return the exit code."""
    request: dict[str, Any] = json.load(sys.stdin)
    evaluate: Callable[[dict[str, Any]], str] = {"jsonnet": _jsonnet, "starlark": _starlark}[request["format"]]
    resource.setrlimit(resource.RLIMIT_DATA, (request["memory_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_seconds"],) * 2)  # in case the parent dies first
    try:
        text = evaluate(request)
    except MemoryError:  # only by the exit code: a message would need memory
        return MEMORY_EXIT
    except BaseException as error:  # noqa: BLE001  the author gets any error of the program, a panic too
        text = _message(error)
        if text == "out of memory":  # starlark's message
            return MEMORY_EXIT
        sys.stdout.write(text)
        return FAILED_EXIT
    sys.stdout.write(text)
    return 0


def _message(error: BaseException) -> str:
    """Return an error's message. jsonnet cuts a long one at a byte, perhaps within a character."""
    return error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)


def _jsonnet(request: dict[str, Any]) -> str:
    import _gojsonnet  # type: ignore[import-not-found]  # it has no types

    return str(
        _gojsonnet.evaluate_snippet(
            request["name"],
            request["source"],
            max_stack=_JSONNET_DEPTH,
            tla_codes={"ctx": json.dumps(request["context"])},
            import_callback=_Imports(request["name"], request["imports"]).find,
        )
    )


class _Imports:
    """The texts that a program may import, by their paths below its folder."""

    def __init__(self, name: str, files: dict[str, str]) -> None:
        self._folder = posixpath.dirname(name)
        self._files = files

    def find(self, folder: str, path: str) -> tuple[str, bytes]:
        """Return path and content of an import from a file in `folder`."""
        below = posixpath.relpath(posixpath.join("/", folder, path), posixpath.join("/", self._folder))
        if below not in self._files:
            raise RuntimeError(f"{path} cannot be imported: it is not in the configuration's folder")
        return posixpath.join(self._folder, below), self._files[below].encode()


def _starlark(request: dict[str, Any]) -> str:
    import starlark

    module = starlark.Module()
    built_in = starlark.Globals.extended_by([starlark.LibraryExtension.Print])
    options = starlark.EvalOptions(max_callstack_size=_STARLARK_DEPTH)
    starlark.eval_with(options, module, starlark.parse(request["name"], request["source"], _dialect()), built_in)
    value = module.freeze().call_with(options, "main", request["context"]).value
    if not isinstance(value, dict):
        raise TypeError(f"main returned a {type(value).__name__}, it must return a dict")
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
