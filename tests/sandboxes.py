"""Whether there can be sandboxes on this machine."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest

from runstream.executor.drivers.process import missing_sandbox


@cache
def missing() -> str:
    """Return why there can be none; empty when there can."""

    return asyncio.run(missing_sandbox())


needs_sandbox = pytest.mark.skipif(bool(missing()), reason=f"no sandbox on this machine: {missing()}")
