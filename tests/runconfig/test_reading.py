"""A file is read by YAML 1.2's rules within fixed bounds; whatever stands in it, the answer is fast and clear."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.runconfig.nodes import MAX_NODES, MappingNode, Node, ScalarNode, SequenceNode
from runstream.runconfig.parse import parse_config
from runstream.runconfig.problems import MAX_PROBLEMS, ConfigError, Problem
from runstream.runconfig.reading import MAX_BYTES, read_nodes


def refused(text: bytes | str, syntax: str = "yaml") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_nodes(text, "config.yml", "json" if syntax == "json" else "yaml")
    return caught.value


def kinds(text: str) -> dict[str, str]:
    node = read_nodes(text, "config.yml")
    assert isinstance(node, MappingNode)
    return {key: value.kind for key, value in node.entries.items() if isinstance(value, ScalarNode)}


def test_scalars_are_what_yaml_1_2_says() -> None:
    text = (
        "a: yes\nb: on\nc: true\nd: 010\ne: 0o10\nf: 1.5\ng: ~\nh:\ni: '1'\nj: 1e3\nk: .inf\nl: 12:30\nm: 2024-01-01\n"
    )
    assert kinds(text) == {
        "a": "str", "b": "str", "c": "bool", "d": "int", "e": "int", "f": "float", "g": "null", "h": "null",
        "i": "str", "j": "float", "k": "float", "l": "str", "m": "str",
    }  # fmt: skip
    assert kinds("on: 1\nno: 2\n") == {"on": "int", "no": "int"}
    assert kinds("a: !!str 10\nb: !!int 10\nc: ! 10\n") == {"a": "str", "b": "int", "c": "str"}


def test_lines_are_those_of_the_file() -> None:
    node = read_nodes("# a comment\nruns:\n  - name: a\n\n  - name: b\n", "config.yml")
    assert isinstance(node, MappingNode)
    assert node.lines == {"runs": 2}
    runs = node.entries["runs"]
    assert isinstance(runs, SequenceNode)
    assert [item.line for item in runs.items] == [3, 5]


def test_merge_keys_and_aliases_are_understood() -> None:
    node = read_nodes("x-a: &a {u: 1, v: 2}\nb:\n  <<: *a\n  v: 3\nc:\n  <<: [*a, {w: 4}]\n", "config.yml")
    assert isinstance(node, MappingNode)
    assert {key: sorted(_texts(node.entries[key])) for key in "bc"} == {
        "b": [("u", "1"), ("v", "3")],
        "c": [("u", "1"), ("v", "2"), ("w", "4")],
    }


def _texts(node: Node | None) -> list[tuple[str, str]]:
    assert isinstance(node, MappingNode)
    return [(key, value.text) for key, value in node.entries.items() if isinstance(value, ScalarNode)]


def test_json_may_have_tabs_and_escapes() -> None:
    node = read_nodes('{\n\t"a":\t"\\ud83d\\ude00 \\/ \\u00e9",\r\n\t"b":[1,2]\n}', "config.json", "json")
    assert isinstance(node, MappingNode)
    assert isinstance(node.entries["a"], ScalarNode)
    assert node.entries["a"].text == "😀 / é"
    assert node.lines == {"a": 2, "b": 3}


def test_json_may_have_escaped_backslashes_before_what_looks_like_a_surrogate_pair() -> None:
    node = read_nodes('{"a": "\\\\ud83d\\\\ude00"}', "config.json", "json")
    assert _texts(node) == [("a", "\\ud83d\\ude00")]


def test_a_tab_inside_of_a_text_is_a_part_of_it() -> None:
    assert _texts(read_nodes("a: b\tc\n", "config.yml")) == [("a", "b\tc")]


def test_a_file_in_json_may_be_written_in_yaml() -> None:
    assert isinstance(read_nodes("a: 1 # comment\n", "config.json", "json"), MappingNode)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_nothing(text: bytes | str) -> None:
    node = read_nodes(text, "config.yml")
    assert node is None or (isinstance(node, ScalarNode) and node.kind == "null")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        ("a: 1\nb: \x07\n", 2, "a character that no text file holds"),
        ('a: "\\0"\n', 1, "NUL"),
        ('a: 1\nb: "\\ud800"\n', 2, "not readable"),
        ('a: "\\UFFFFFFFF"\n', 1, "not readable"),
        ("a: 1\na: 2\n", 2, 'key "a" is given twice'),
        ("a: 1\n---\nb: 1\n", 2, "more than one document"),
        ("a: &x [*x]\n", 1, "inside of what it names"),
        ("a: *x\n", 1, "names nothing"),
        ("a: !!python/object:os.system x\n", 1, "tag"),
        ("a: !!binary {}\n", 1, "tag"),
        ("a: !!bool yes\n", 1, "no value of the tag !!bool"),
        ("a: !!int text\n", 1, "tag"),
        ("a:\n\t- b\n", 2, "not readable"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("a: [1, 2\n", 2, "not readable"),
        ("? [a]\n: 1\n", 1, "a key is not a text"),
        ("~: 1\n", 1, "a key is not a text"),
        ("a:\n  <<: 1\n", 2, "can be merged"),
    ],
)
def test_what_is_not_a_configuration_file_is_refused(text: bytes | str, line: int, message: str) -> None:
    (problem,) = refused(text).problems
    assert message in problem.message
    assert problem.line == line


LAUGHS = "x0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"x{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
)
BOMBS: dict[str, bytes | str] = {
    "ten MiB": b"a" * (10 << 20),
    "one byte too many": "a" * (MAX_BYTES + 1),
    "many bytes in few characters": "é" * (MAX_BYTES // 2 + 1),
    "a billion aliases": LAUGHS,
    "merged aliases": LAUGHS + "b:\n  c: *a29\n",
    "deep lists": "[" * 100_000,
    "deep maps": "{a: " * 100_000,
    "deep both": "[{" * 100_000,
    "deep blocks": "- " * 100_000,
    "deep keys": "? " * 100_000,
    "deep indentation": "".join(f"{' ' * i}a:\n" for i in range(300)),
    "a hundred thousand tasks": "runs:\n- name: r\n  tasks:\n" + "  - name: t\n" * 74_000,
    "many values": "[" + "1," * (MAX_NODES + 1) + "]",
    "many documents": "--- 1\n" * 100_000,
    "quotes": '"' * 100_000,
    "deep json": '{"a":' * 100_000 + "1" + "}" * 100_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name: str) -> None:
    refused(BOMBS[name], "json" if "json" in name else "yaml")


@pytest.mark.parametrize("name", ["ten MiB", "a billion aliases", "merged aliases", "deep maps", "quotes"])
def test_bombs_are_refused_in_bounded_memory(name: str) -> None:
    tracemalloc.start()
    try:
        refused(BOMBS[name])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50 << 20


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("abruns: -[]{},&*!|>'\"#%@`?<~0123\n\t\\"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert all(problem.line >= 1 for problem in problems_of(text))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    assert len(problems_of(content)) <= MAX_PROBLEMS


def problems_of(text: str | bytes) -> tuple[Problem, ...]:
    """None when it is read; whatever else than ConfigError is raised fails the test."""
    try:
        parse_config(text, "json")
    except ConfigError as error:
        return error.problems
    return ()
