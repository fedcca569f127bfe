"""Changes between JSON documents: applied to the one before, they give the one after."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.json_changes import differences, with_changes

KEYS = st.sampled_from(["a", "b", "c", "0", ""])
LEAVES: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers(-2, 2) | st.text("ab", max_size=2)
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(DOCUMENTS, DOCUMENTS)
def test_changes_of_two_documents_make_the_second_of_the_first(before: Any, after: Any) -> None:
    untouched = json.dumps(before)
    changes, removals = differences(before, after)
    sent = json.loads(json.dumps([changes, removals]))
    assert json.dumps(with_changes(before, *sent), sort_keys=True) == json.dumps(after, sort_keys=True)
    assert json.dumps(before) == untouched


@given(DOCUMENTS)
def test_a_document_differs_in_nothing_from_itself(document: Any) -> None:
    assert differences(document, json.loads(json.dumps(document))) == ([], [])


@given(DOCUMENTS, DOCUMENTS)
def test_each_path_is_named_once_and_none_lies_below_another(before: Any, after: Any) -> None:
    changes, removals = differences(before, after)
    paths = [path for path, _ in changes] + removals
    for index, path in enumerate(paths):
        assert not any(other[: len(path)] == path for at, other in enumerate(paths) if at != index)


def test_only_what_differs_is_a_change() -> None:
    before = {"run": {"phase": "queued", "tasks": {"t": {"steps": [{"phase": "notstarted"}], "notes": {"x": "1"}}}}}
    after = {"run": {"phase": "running", "tasks": {"t": {"steps": [{"phase": "running"}], "notes": {}}}}}
    changes, removals = differences(before, after, ("answer",))
    assert sorted(changes) == [
        (("answer", "run", "phase"), "running"),
        (("answer", "run", "tasks", "t", "steps", 0, "phase"), "running"),
    ]
    assert removals == [("answer", "run", "tasks", "t", "notes", "x")]


@pytest.mark.parametrize(("path", "document"), [((1,), []), (("a",), []), ((0, "a"), "text"), ((-1,), [1])])
def test_changes_of_another_document_are_refused(path: tuple[str | int, ...], document: Any) -> None:
    with pytest.raises(ValueError, match="can be changed"):
        with_changes(document, [(path, 1)])
