"""A deployment for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from runstream.objects import ObjectStorage
from tests.datamanager.place import Place, deployment
from tests.objects.backends import Open, opener

OpenPlace = Callable[[], AbstractAsyncContextManager[Place]]


@pytest.fixture(params=["posix", "s3"])
def open_storage(request: pytest.FixtureRequest) -> Open:
    """Opens an object storage, empty at first, of each kind that users can have."""
    return opener(request.param, request)


@pytest.fixture
def storage(open_storage: Open) -> ObjectStorage:
    """The storage, opened."""

    async def opened() -> ObjectStorage:
        return await open_storage()

    return uvloop.run(opened())


@pytest.fixture
def storage_name(request: pytest.FixtureRequest, open_storage: Open, tmp_path: Path, namespace: str) -> str:
    """The same storage, for a process of its own (see `child`)."""
    if request.node.callspec.params["open_storage"] == "s3":
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
