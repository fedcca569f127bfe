"""The settings of retention, as texts and as policies."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runstream.domain.retention import Policy
from runstream.policies import parse_age, parse_size, policies_of
from runstream.settings import RetainedRuns, RetentionSettings

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90d", 90 * DAY),
        ("36h", 1.5 * DAY),
        ("1h30m", DAY / 16),
        ("500ms", timedelta(seconds=0.5)),
        ("never", None),
        ("", None),
    ],
)
def test_ages(text: str, age: timedelta | None) -> None:
    assert parse_age(text) == age


@pytest.mark.parametrize("text", ["0s", "-1h", "0d", "soon", "1w", "d", "1.5d", "9999999d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="age"):
        parse_age(text)


@pytest.mark.parametrize(
    ("text", "size"), [("10GiB", 10 << 30), ("500MB", 500_000_000), ("1Ki", 1024), ("42", 42), ("", None)]
)
def test_sizes(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["much", "-1", "GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size such as"):
        parse_size(text)


def test_a_group_root_has_what_differs_and_the_rest_of_all() -> None:
    settings = RetentionSettings(
        runs=RetainedRuns(keep=100, age="90d"),
        groups={"/project/deploys": "runs.keep=10 runs.age=never logs=365d", "/user/ada": "runs.keep=all"},
    )
    policies = policies_of(settings)
    assert policies.of("/project/web") == Policy(100, 90 * DAY, 30 * DAY, 7 * DAY)
    assert policies.of("/project/deploys") == Policy(10, None, 365 * DAY, 7 * DAY)
    assert policies.of("/user/ada") == Policy(None, 90 * DAY, 30 * DAY, 7 * DAY)
    assert policies
    assert not policies_of(RetentionSettings(logs="never", archives="never"))


@pytest.mark.parametrize(
    ("root", "text", "match"),
    [
        ("/project/web/branch/main", "logs=1d", "is not a project or user"),
        ("/project/web", "keep=3", "is none of runs.keep=…"),
        ("/project/web", "runs.keep=0", "runs.keep is a number from 1"),
        ("/project/web", "runs.keep=many", "runs.keep is a number from 1"),
        ("/project/web", "logs=soon", "is not an age"),
    ],
)
def test_what_is_wrong_about_a_group_root_is_named(root: str, text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        policies_of(RetentionSettings(groups={root: text}))
