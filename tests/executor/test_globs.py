"""Which paths a pattern selects."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.errors import BadRequestError
from runstream.executor.globs import Glob


@pytest.mark.parametrize(
    ("pattern", "selected", "not_selected"),
    [
        ("**", ["a", "a/b", "a/b/c"], []),
        ("*", ["a", ".a", "a b"], ["a/b"]),
        ("a/**", ["a", "a/b", "a/b/c"], ["b", "ab"]),
        ("**/c", ["c", "a/c", "a/b/c"], ["a/cc"]),
        ("a/**/c", ["a/c", "a/b/c", "a/b/b/c"], ["a/b", "c"]),
        ("dist/*.whl", ["dist/x.whl", "dist/.whl"], ["dist/x/y.whl", "x.whl"]),
        ("a?c", ["abc", "a?c"], ["ac", "a/c"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "x"]),
        ("[^a-c]x", ["dx"], ["ax", "/x"]),
        ("[!a]", ["b"], ["a"]),
        ("[]]", ["]"], ["["]),
        ("{a,b/c}/*", ["a/x", "b/c/x"], ["b/x", "c/x"]),
        ("x{a,{b,c}d}", ["xa", "xbd", "xcd"], ["xb", "xd"]),
        (r"\*\{", ["*{"], ["a{", r"\*{"]),
        ("a**b", ["ab", "axb"], ["a/b"]),
        ("*.tar.*", ["x.tar.gz", ".tar.", "a.tar.tar."], ["x.tar"]),
        ("", [""], ["a"]),
        ("./a//./b/", ["a/b"], ["a", "a/b/c"]),
        (".", ["a", "a/b"], []),
        ("/a", [], ["a", "/a/b"]),
        ("**/**", ["a", "a/b"], []),
        ("a[.-0]b", ["a.b", "a0b"], ["a/b"]),
        ("a[!.]b", ["axb"], ["a/b", "a.b"]),
        (r"a\/b", [], ["a/b"]),
        ("?", ["é", "\udc80", "\n"], ["éé"]),
    ],
)
def test_patterns(pattern: str, selected: list[str], not_selected: list[str]) -> None:
    glob = Glob(pattern)
    assert [path for path in selected if not glob.matches(path)] == []
    assert [path for path in not_selected if glob.matches(path)] == []


@pytest.mark.parametrize("pattern", ["[", "a[b", "{a", "{a,{b}", "a\\", "[z-a]", "{a,b}" * 40, "{" * 100])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(BadRequestError):
        Glob(pattern)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_one_element_is_matched_as_a_shell_does(pattern: str, name: str) -> None:
    expected = fnmatch.fnmatchcase(name, pattern)
    assert Glob(f"x{pattern}").matches(f"x{name}") == expected


def test_a_hostile_pattern_takes_no_exponential_time() -> None:
    assert not Glob("*a" * 200 + "b").matches("a" * 250)
    assert not Glob("**/" * 200 + "b").matches("/".join("a" * 200))


@given(st.lists(st.sampled_from(["a", "b", "*", "**", "?"]), min_size=1, max_size=4), st.text("ab/", max_size=6))
def test_a_folder_is_looked_into_when_something_below_may_be_selected(pattern: list[str], path: str) -> None:
    glob, names = Glob("/".join(pattern)), [name for name in path.split("/") if name]
    if names and glob.matches("/".join(names)):
        for at in range(len(names)):
            assert glob.goes_on("/".join(names[:at]))
