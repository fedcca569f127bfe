"""Whether there can be sandboxes on this machine."""

from __future__ import annotations

import asyncio
import ctypes
from functools import cache

import pytest

from runstream.executor.drivers.process import missing_sandbox


@cache
def missing() -> str:
    """Return why there can be none; empty when there can."""

    return asyncio.run(missing_sandbox())


needs_sandbox = pytest.mark.skipif(bool(missing()), reason=f"no sandbox on this machine: {missing()}")


_LANDLOCK_CREATE_RULESET = 444
_ABI_OF_SCOPES = 6
needs_scopes = pytest.mark.skipif(
    ctypes.CDLL(None).syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1)) < _ABI_OF_SCOPES,
    reason="this kernel has no Landlock scopes",
)
"""Asked of the kernel, not of the executor: one that forgot to ask would skip its own tests."""
