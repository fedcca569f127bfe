"""Ids are UUIDs in canonical text: random ones of version 4, derived ones of version 5, for ever the same."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from runstream.ids import derived_id, new_id, require_uuid

NAMESPACE = uuid.UUID("6f1d2c52-5a0e-5d5c-9a58-2f4d7d0a3b11")


def test_a_new_id_is_a_random_uuid() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    for text in ids:
        assert uuid.UUID(require_uuid(text, "id")).version == 4
        assert uuid.UUID(text).variant == uuid.RFC_4122


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1))
def test_a_derived_id_is_the_uuid_5_of_its_parts(parts: list[str]) -> None:
    assert derived_id(*parts) == str(uuid.uuid5(NAMESPACE, "\x1f".join(parts)))
