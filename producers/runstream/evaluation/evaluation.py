"""Evaluating a program from outside: started, bounded in time, memory and output, and ended whatever it does.

Each evaluation is a process of its own, because neither jsonnet nor starlark can be interrupted for certain from
within. Its environment is empty and it has no secrets; what it is told is its source and the context (rule config-14).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Self

from runstream.errors import BadRequestError
from runstream.evaluation import child

ProgramFormat = Literal["jsonnet", "starlark"]
_CHUNK_BYTES = 1 << 16
_THREADS = 4
"""How many threads an interpreter may keep busy."""
_NOTHING: Mapping[str, str] = {}
_TOLD_CHARACTERS = 1_000
"""How much of the beginning and of the end of a program's own error is told."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one evaluation may take."""

    seconds: float = 5.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 1 << 20


LIMITS = Limits()


class EvaluationError(BadRequestError):
    """The program failed, or passed a limit."""


def evaluate(
    source: str,
    program: ProgramFormat,
    name: str,
    context: Mapping[str, str],
    limits: Limits = LIMITS,
    imports: Mapping[str, str] = _NOTHING,
) -> str:
    """The JSON text that the program makes of the context. Blocks, but never longer than the limit.

    jsonnet gets the context as top-level argument `ctx`, starlark's `main` as its only argument. `imports` are the
    texts that jsonnet may import, by path below the folder of `name`. Raises EvaluationError that names the file and
    says what failed or which limit was passed.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", str(Path(child.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what the program prints
        env=_environment(limits),
    )
    with process, _Deadline(process, limits.seconds) as deadline:
        output = _converse(process, _request(source, program, name, context, imports, limits), limits.output_bytes)
        code = process.wait()
    if deadline.passed:
        raise _passed(name, f"takes longer than {limits.seconds:g} seconds", code="configTimeLimit")
    if len(output) > limits.output_bytes:
        raise _passed(name, f"makes more than {limits.output_bytes} bytes", code="configOutputLimit")
    if code == child.FAILED_EXIT:
        raise EvaluationError(f"failed to execute {program} {name}: {_told(output)}", code="configEvaluationFailed")
    if code:
        raise _passed(name, f"needs more than {limits.memory_bytes >> 20} MiB of memory", code="configMemoryLimit")
    return output.decode()


def _environment(limits: Limits) -> dict[str, str]:
    """For jsonnet's Go: memory is collected when it gets scarce, not before."""
    return {"GOGC": "off", "GOMEMLIMIT": str(limits.memory_bytes // 2)}


def _request(
    source: str, program: str, name: str, context: Mapping[str, str], imports: Mapping[str, str], limits: Limits
) -> bytes:
    request = {
        "format": program,
        "name": name,
        "source": _lines(source),
        "context": dict(context),
        "imports": {path: _lines(text) for path, text in imports.items()},
        "memory_bytes": limits.memory_bytes,
        "cpu_seconds": int(limits.seconds * _THREADS) + 1,
    }
    return json.dumps(request).encode()


def _lines(text: str) -> str:
    """The text with LF at the end of each line: CR LF is a line end, as in YAML."""
    return text.replace("\r\n", "\n")


class _Deadline:
    """Ends a process after some seconds, and in any case when it is left."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True
        self.passed = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._process.kill()

    def _pass(self) -> None:
        if self._process.poll() is None:
            self.passed = True
            self._process.kill()


def _converse(process: subprocess.Popen[bytes], request: bytes, most: int) -> bytes:
    """What the child writes, at most a byte more than it may. It reads the whole request before it writes."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the child has no pipes")
    _write(process.stdin, request)
    return _read(process, process.stdout, most + 1)


def _write(stream: IO[bytes], request: bytes) -> None:
    try:
        with stream:
            stream.write(request)
    except (BrokenPipeError, ConnectionResetError):
        return  # it has ended before it read everything: its exit code tells why


def _read(process: subprocess.Popen[bytes], stream: IO[bytes], most: int) -> bytes:
    """What the stream has, at most this much; whoever writes more is ended."""
    kept = bytearray()
    while chunk := stream.read(min(_CHUNK_BYTES, most - len(kept))):
        kept += chunk
        if len(kept) == most:
            process.kill()
            break
    return bytes(kept)


def _told(said: bytes) -> str:
    """The error's beginning and its end, which is where starlark says what it was."""
    text = said.decode(errors="replace").strip()
    return text if len(text) <= 2 * _TOLD_CHARACTERS else f"{text[:_TOLD_CHARACTERS]}\n…\n{text[-_TOLD_CHARACTERS:]}"


def _passed(name: str, what: str, *, code: str) -> EvaluationError:
    return EvaluationError(
        f"the configuration {name} {what}", code=code, hint="it may loop endlessly; make it do less, or split it"
    )
