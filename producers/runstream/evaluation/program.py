"""Evaluating a program in a child process, with bounds on its time, memory and output.

A process of its own, because neither jsonnet nor starlark can be interrupted reliably from within. Its environment is
empty; it gets the program's source, the context (rule config-14) and no secrets.
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
NO_IMPORTS: Mapping[str, str] = {}
_CHUNK_BYTES = 1 << 16
_THREADS = 4
"""Threads that an interpreter may keep busy."""
_MAX_ERROR = 1_000
"""Characters kept of each end of a program's error."""


@dataclass(frozen=True, slots=True)
class EvaluationLimits:
    """The limits of one evaluation."""

    seconds: float = 5.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 1 << 20


LIMITS = EvaluationLimits()


class EvaluationError(BadRequestError):
    """A program that failed, or exceeded a limit."""


def evaluate(
    source: str,
    program: ProgramFormat,
    name: str,
    context: Mapping[str, str],
    limits: EvaluationLimits = LIMITS,
    imports: Mapping[str, str] = NO_IMPORTS,
) -> str:
    """Return the JSON text that a program makes of the context. Block until it ends, at most `limits.seconds`.

    jsonnet gets the context as top-level argument `ctx`, starlark's `main` as its only argument. `imports` are the
    texts that jsonnet may import, by path below the folder of `name`. Raise EvaluationError with the file's name and
    the failure, or the exceeded limit.
    """
    request = {
        "format": program,
        "name": name,
        "source": _with_lf(source),
        "context": dict(context),
        "imports": {path: _with_lf(text) for path, text in imports.items()},
        "memory_bytes": limits.memory_bytes,
        "cpu_seconds": int(limits.seconds * _THREADS) + 1,
    }
    process = subprocess.Popen(
        [sys.executable, "-I", str(Path(child.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what the program prints
        # jsonnet's Go runtime: collect garbage only when memory gets scarce
        env={"GOGC": "off", "GOMEMLIMIT": str(limits.memory_bytes // 2)},
    )
    with process, _Deadline(process, limits.seconds) as deadline:
        output = _exchange(process, json.dumps(request).encode(), limits.output_bytes)
        code = process.wait()
    if deadline.passed:
        raise _limit_error(name, f"takes longer than {limits.seconds:g} seconds", code="configTimeLimit")
    if len(output) > limits.output_bytes:
        raise _limit_error(name, f"makes more than {limits.output_bytes} bytes", code="configOutputLimit")
    if code == child.FAILED_EXIT:
        raise EvaluationError(f"failed to execute {program} {name}: {_shorten(output)}", code="configEvaluationFailed")
    if code:
        raise _limit_error(name, f"needs more than {limits.memory_bytes >> 20} MiB of memory", code="configMemoryLimit")
    return output.decode()


def _with_lf(text: str) -> str:
    """Replace CR LF by LF: both end a line, as in YAML."""
    return text.replace("\r\n", "\n")


class _Deadline:
    """A context that kills a process after some seconds, and in any case at its exit."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self.passed = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._process.kill()

    def _expire(self) -> None:
        if self._process.poll() is None:
            self.passed = True
            self._process.kill()


def _exchange(process: subprocess.Popen[bytes], request: bytes, max_bytes: int) -> bytes:
    """Send the request and return the output, cut one byte past its limit. The child reads all before it writes."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the child has no pipes")
    try:
        with process.stdin as stdin:
            stdin.write(request)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the child ended before it read everything: its exit code says why
    return _read(process, process.stdout, max_bytes + 1)


def _read(process: subprocess.Popen[bytes], stream: IO[bytes], max_bytes: int) -> bytes:
    """Read to the end; kill a process that writes `max_bytes` or more."""
    kept = bytearray()
    while chunk := stream.read(min(_CHUNK_BYTES, max_bytes - len(kept))):
        kept += chunk
        if len(kept) == max_bytes:
            process.kill()
            break
    return bytes(kept)


def _shorten(output: bytes) -> str:
    """Return both ends of an error: starlark puts the cause last."""
    text = output.decode(errors="replace").strip()
    return text if len(text) <= 2 * _MAX_ERROR else f"{text[:_MAX_ERROR]}\n…\n{text[-_MAX_ERROR:]}"


def _limit_error(name: str, problem: str, *, code: str) -> EvaluationError:
    return EvaluationError(
        f"the configuration {name} {problem}", code=code, hint="it may loop endlessly; make it do less, or split it"
    )
