"""Ids: random ones for objects that users create, derived ones for everything that follows from them.

A derived id makes a repeated decision recognisable: a worker that dies after appending, and decides again, computes the
same id, which the log recognises as a duplicate.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid

from runstream.errors import BadRequestError

_NAMESPACE = uuid.UUID("6f1d2c52-5a0e-5d5c-9a58-2f4d7d0a3b11").bytes
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def new_id() -> str:
    """Return a random UUID (version 4) as canonical text."""
    return _uuid(os.urandom(16), 4)


def derived_id(*parts: str) -> str:
    """Derive a UUID (version 5) from these parts, in this order."""
    name = "\x1f".join(parts).encode()
    return _uuid(hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).digest()[:16], 5)


def _uuid(content: bytes, version: int) -> str:
    """Return the canonical text of a UUID's 16 bytes, as `uuid.UUID` does, in a third of the time."""
    marked = bytearray(content)
    marked[6] = marked[6] & 0x0F | version << 4
    marked[8] = marked[8] & 0x3F | 0x80
    text = marked.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def content_hash(content: bytes) -> str:
    """Return the SHA-256 of the content in hex, the id of an object that is stored by its content."""
    return hashlib.sha256(content).hexdigest()


def run_task_id(run_id: str, task_name: str) -> str:
    """Return the id of a task of a run. (A task that a restart keeps has its id from the earlier run.)"""
    return derived_id("run-task", run_id, task_name)


def executor_task_id(run_id: str, run_task: str, attempt: int = 1) -> str:
    """Return the id of the executor task of an attempt; there is one for each run, task and attempt."""
    parts = () if attempt == 1 else (str(attempt),)
    return derived_id("executor-task", run_id, run_task, *parts)


def attempt_id(run_task: str, attempt: int) -> str:
    """Return the id under which logs and archives of an attempt at a run's task are stored; of the first one, the
    task's id."""
    return run_task if attempt == 1 else f"{run_task}-{attempt}"


def commit_id(cause: str, aggregate: str, version: int, content: str = "") -> str:
    """Return the id of the commit that a cause leads to in an aggregate, by version; by content too if it may vary."""
    return derived_id("commit", cause, aggregate, str(version), *((content,) if content else ()))


def is_uuid(text: str) -> bool:
    """Return whether the text is a canonical UUID."""
    return _UUID.fullmatch(text) is not None


def require_uuid(text: str, what: str) -> str:
    """Return the text if it is a canonical UUID. Raises BadRequestError that names `what`."""
    if not is_uuid(text):
        raise BadRequestError(
            f"{what} {text[:80]!r} is not a valid id",
            code="invalidId",
            details={"what": what},
            hint="an id is a UUID in lower case, such as 0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11",
        )
    return text


def require_token(text: str, what: str) -> str:
    """Return the text if it can be a token of a subject: 1 to 64 of A-Z a-z 0-9 _ -. Raises BadRequestError."""
    if not _TOKEN.fullmatch(text):
        raise BadRequestError(
            f"{what} {text[:80]!r} is not a valid name",
            code="invalidName",
            details={"what": what},
            hint="use 1 to 64 letters, digits, '-' and '_'",
        )
    return text
