"""Evaluating a program from outside: started, bounded in time, memory and output, and ended whatever it does.

Each evaluation is a process of its own, because neither jsonnet nor starlark can be interrupted for certain from
within. Its environment is empty and it has no secrets; what it is told is its source and the context (a.13).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runstream.errors import BadRequestError
from runstream.evaluation import child

ProgramFormat = Literal["jsonnet", "starlark"]
_CHUNK_BYTES = 1 << 16
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


async def evaluate(
    source: str, program: ProgramFormat, name: str, context: Mapping[str, str], limits: Limits = LIMITS
) -> str:
    """The JSON text that the program makes of the context.

    jsonnet gets the context as top-level argument `ctx`, starlark's `main` as its only argument. Raises
    EvaluationError that names the file and says what failed or which limit was passed.
    """
    request = {
        "format": program,
        "name": name,
        "source": source,
        "context": dict(context),
        "memory_bytes": limits.memory_bytes,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(Path(child.__file__)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # what the program prints
        env={},
    )
    try:
        async with asyncio.timeout(limits.seconds):
            output = await _converse(process, json.dumps(request).encode(), limits)
            code = await process.wait()
    except TimeoutError as error:
        raise _passed(name, f"takes longer than {limits.seconds:g} seconds", "configTimeLimit") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if len(output) > limits.output_bytes:
        raise _passed(name, f"makes more than {limits.output_bytes} bytes", "configOutputLimit")
    if code == child.FAILED_EXIT:
        raise EvaluationError(f"failed to execute {program} {name}: {_told(output)}", code="configEvaluationFailed")
    if code:
        raise _passed(name, f"needs more than {limits.memory_bytes >> 20} MiB of memory", "configMemoryLimit")
    return output.decode()


async def _converse(process: asyncio.subprocess.Process, request: bytes, limits: Limits) -> bytes:
    """What the child writes, at most a byte more than it may."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the child has no pipes")
    async with asyncio.TaskGroup() as tasks:
        output = tasks.create_task(_read(process.stdout, limits.output_bytes + 1, process))
        tasks.create_task(_write(process.stdin, request))
    return output.result()


async def _read(stream: asyncio.StreamReader, most: int, process: asyncio.subprocess.Process) -> bytes:
    """What the stream has, at most this much; whoever writes more is ended, and the rest is thrown away."""
    kept = bytearray()
    while chunk := await stream.read(_CHUNK_BYTES):
        kept += chunk[: most - len(kept)]
        if len(kept) >= most and process.returncode is None:
            process.kill()
    return bytes(kept)


async def _write(stream: asyncio.StreamWriter, request: bytes) -> None:
    try:
        stream.write(request)
        await stream.drain()
    except (BrokenPipeError, ConnectionResetError):
        return  # it has ended before it read everything: its exit code tells why
    finally:
        stream.close()


def _told(said: bytes) -> str:
    """The error's beginning and its end, which is where starlark says what it was."""
    text = said.decode(errors="replace").strip()
    return text if len(text) <= 2 * _TOLD_CHARACTERS else f"{text[:_TOLD_CHARACTERS]}\n…\n{text[-_TOLD_CHARACTERS:]}"


def _passed(name: str, what: str, code: str) -> EvaluationError:
    return EvaluationError(
        f"the configuration {name} {what}", code=code, hint="it may loop endlessly; make it do less, or split it"
    )
