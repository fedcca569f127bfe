"""The protocol of commands in containers: one websocket, in which the first byte of each message names its channel.

Version 4 has the channels below. Version 5 adds a message that closes a channel, which is how a command gets the end
of its input. The server sends the result on the error channel, after the last output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

CLOSES_INPUT = "v5.channel.k8s.io"
PROTOCOLS = [CLOSES_INPUT, "v4.channel.k8s.io"]
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_CLOSE = 255
INPUT_BYTES = 64 << 10
"""Maximum size of one message of input."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    status: int
    """Its exit status; -1 for a command that did not run."""
    reason: str = ""
    """Why it did not run."""


def result_of(message: bytes) -> Result:
    """Return the result that a message on the error channel tells."""
    try:
        told = msgspec.json.decode(message, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Result(-1, message.decode(errors="replace").strip()[:300] or "the server told no result")
    if told.get("status") == "Success":
        return Result(0)
    details = told.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in causes if isinstance(causes, list) else ():
        if isinstance(cause, dict) and cause.get("reason") == "ExitCode" and str(cause.get("message")).isdigit():
            return Result(int(cause["message"]))
    return Result(-1, str(told.get("message") or told.get("reason") or "the server told no reason")[:500])


def input_message(chunk: bytes) -> bytes:
    """Return the message with a part of a command's input."""
    return bytes((STDIN,)) + chunk


def end_of_input() -> bytes:
    """Return the message that ends a command's input; only in version 5."""
    return bytes((_CLOSE, STDIN))


def size_message(rows: int, columns: int) -> bytes:
    """Return the message with the size of a command's terminal."""
    return bytes((RESIZE,)) + msgspec.json.encode({"Height": rows, "Width": columns})
