"""The schemas in the documentation are today's, and a released version never changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

from runstream import json_schemas
from runstream.upcasters import UPCASTERS

FOLDER = Path(__file__).parents[2] / json_schemas.FOLDER
RELEASED: dict[str, str] = orjson.loads((FOLDER / json_schemas.RELEASED).read_bytes())


def superseded(released: Mapping[str, str], current: Mapping[str, Mapping[str, object]]) -> set[tuple[str, int]]:
    """Return the released types and versions that are no longer current: each needs an upcaster."""
    gone = (name.rpartition(".") for name in released if name not in current)
    return {(kind, int(version)) for kind, _, version in gone}


def test_the_schemas_in_the_documentation_are_generated_from_the_events() -> None:
    for name, schema in json_schemas.schemas().items():
        file = FOLDER / f"{name}.json"
        assert file.exists(), f"{name} has no schema: run `python -m runstream.json_schemas`"
        assert file.read_bytes() == json_schemas.text(schema), f"{name} changed: run `python -m runstream.json_schemas`"


def test_a_released_version_is_what_it_was() -> None:
    assert json_schemas.broken(RELEASED, json_schemas.schemas()) == []


def test_a_released_version_that_was_superseded_has_an_upcaster_and_a_golden_file() -> None:
    gone = superseded(RELEASED, json_schemas.schemas())
    assert gone <= UPCASTERS.keys()
    golden = Path(__file__).with_name("golden")
    assert all((golden / f"{kind}.{version}.json").exists() for kind, version in gone)


def test_a_changed_field_breaks_a_release_and_a_changed_word_does_not() -> None:
    before = json_schemas.schemas()["RunNumbered.1"]
    released = {"RunNumbered.1": json_schemas.fingerprint(before)}
    assert json_schemas.broken(released, {"RunNumbered.1": before | {"description": "Other words."}}) == []
    assert json_schemas.broken(released, {"RunNumbered.1": before | {"required": ["counter"]}}) == ["RunNumbered.1"]
    assert superseded(released, {}) == {("RunNumbered", 1)}


def test_a_property_named_like_a_word_for_people_counts() -> None:
    one, other = ({"properties": {"title": {"type": kind}}} for kind in ("string", "integer"))
    assert json_schemas.fingerprint(one) != json_schemas.fingerprint(other)


def test_the_files_can_be_written_and_released_anywhere(tmp_path: Path) -> None:
    json_schemas.main([str(tmp_path), "--release"])
    released = orjson.loads((tmp_path / json_schemas.RELEASED).read_bytes())
    assert released.keys() == json_schemas.schemas().keys()
