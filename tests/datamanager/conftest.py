"""A deployment for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.datamanager.place import Place, deployment
from tests.objects.backends import Open

OpenPlace = Callable[[], AbstractAsyncContextManager[Place]]


@pytest.fixture(autouse=True)
def _nothing_is_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of syncs take minutes on a busy disk, and no test here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(params=["posix", pytest.param("s3", marks=pytest.mark.again)])
def storage_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of object storage; that both do what is asked of them is tested in tests/objects."""
    return str(request.param)


@pytest.fixture
def storage_name(request: pytest.FixtureRequest, storage_kind: str, tmp_path: Path, namespace: str) -> str:
    """The same storage, for a process of its own (see `child`)."""
    if storage_kind == "s3":
        return f"s3 {request.getfixturevalue('s3_url')} {namespace}"
    return str(tmp_path / "objects")


@pytest.fixture
def new_place(nats_url: str, database_url: str, database_schema: str, namespace: str, open_storage: Open) -> OpenPlace:
    """Opens a deployment on real servers, in which there is nothing yet."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Place]:
        storage = await open_storage()
        async with deployment(nats_url, database_url, database_schema, namespace, storage) as place:
            yield place

    return opened
