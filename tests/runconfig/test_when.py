"""When something is meant for a ref (rules config-10 and config-11)."""

from __future__ import annotations

import pytest

from runstream.runconfig.parse import parse_config
from runstream.runconfig.when import Conditions, Pattern, When, match_when


def when(text: str) -> When | None:
    return parse_config(f"runs: [{{name: r, when: {text}}}]").runs[0].when


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("main", Pattern("main")),
        ("/main/", Pattern("main", "regexp")),
        ("'#main#'", Pattern("main", "regexp")),
        ("/main#", Pattern("/main#")),
        ("/", Pattern("/")),
        ("//", Pattern("//")),
        ("'##'", Pattern("##")),
        ("///", Pattern("/", "regexp")),
        ("''", Pattern("")),
    ],
)
def test_patterns(text: str, pattern: Pattern) -> None:
    assert when(f"{{branch: {text}}}") == When(branch=Conditions((pattern,)))


def test_sections_are_a_text_a_list_or_a_map() -> None:
    both = Conditions((Pattern("a"), Pattern("b")))
    assert when("{tag: [a, b]}") == When(tag=both)
    assert when("{tag: {include: [a, b]}}") == When(tag=both)
    assert when("{tag: {include: a, exclude: b}}") == When(tag=Conditions((Pattern("a"),), (Pattern("b"),)))
    assert when("{tag: {include: null}}") == When(tag=Conditions())
    assert when("{tag: null}") == When()
    assert when("null") is None


@pytest.mark.parametrize(
    ("text", "ref_type", "name", "expected"),
    [
        ("null", "branch", "main", True),
        ("{}", "branch", "main", False),
        ("{branch: null}", "branch", "main", False),
        ("{branch: main}", "branch", "main", True),
        ("{branch: main}", "branch", "maintenance", False),
        ("{branch: /main/}", "branch", "not-main-at-all", True),
        ("{branch: /^main$/}", "branch", "maintenance", False),
        ("{branch: main}", "tag", "main", False),
        ("{branch: {exclude: main}}", "branch", "other", False),
        ("{branch: {include: /.*/, exclude: main}}", "branch", "main", False),
        ("{branch: /.*/}", "branch", "", False),
        ("{tag: /^v\\d+$/}", "tag", "v12", True),
        ("{branch: /x/, ref: refs/heads/main}", "branch", "main", True),
        ("{branch: main, ref: {exclude: refs/heads/main}}", "branch", "main", False),
        ("{branch: {include: main, exclude: main}, ref: /main/}", "branch", "main", True),
        ("{branch: /.*/, tag: /.*/}", "pull_request", "1", False),
        ("{ref: '#refs/pull/.*#'}", "pull_request", "1", True),
    ],
)
def test_matching(text: str, ref_type: str, name: str, expected: bool) -> None:
    ref = {"branch": f"refs/heads/{name}", "tag": f"refs/tags/{name}"}.get(ref_type, f"refs/pull/{name}/head")
    branch, tag = (name if ref_type == kind else "" for kind in ("branch", "tag"))
    assert match_when(when(text), ref_type, branch, tag, ref) is expected


def test_an_expression_takes_linear_time_whatever_it_is() -> None:
    hostile = when("{branch: '/^(a+)+$/'}")
    assert match_when(hostile, "branch", "a" * 100_000 + "b", "", "") is False
