"""A storage of each backend."""

from __future__ import annotations

import pytest

from tests.objects.backends import BACKENDS, Open, opener


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Its name."""
    return str(request.param)


@pytest.fixture
def open_storage(backend: str, request: pytest.FixtureRequest) -> Open:
    """What opens the storage of a test: `storage = await open_storage()`."""
    return opener(backend, request)
