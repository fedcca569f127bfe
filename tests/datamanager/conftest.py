"""A deployment for each test."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.datamanager.place import Place, deployment

OpenPlace = Callable[[], AbstractAsyncContextManager[Place]]


@pytest.fixture
def new_place(nats_url: str, database_url: str, database_schema: str, namespace: str, tmp_path: Path) -> OpenPlace:
    """Opens a deployment on real servers, in which there is nothing yet."""
    return partial(deployment, nats_url, database_url, database_schema, namespace, tmp_path / "objects")
