"""Words and files of other CI systems, values that do not do what they seem to, and what is taken as it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.errors import BadRequestError
from runstream.evaluation.files import parse_file
from runstream.events.run_config import Text
from runstream.runconfig.fields import (
    CONCURRENCY,
    CONTAINER,
    DEPEND,
    NAMES,
    PATTERNS,
    RETRY,
    RUN,
    RUNTIME,
    STEP,
    STEPS,
    TASK,
    TOP,
    VALUE,
    WHEN,
    FieldTable,
)
from runstream.runconfig.foreign import (
    FOREIGN_CONCURRENCY,
    FOREIGN_CONTAINER,
    FOREIGN_DEPEND,
    FOREIGN_PATTERNS,
    FOREIGN_RETRY,
    FOREIGN_RUN,
    FOREIGN_RUNTIME,
    FOREIGN_STEP,
    FOREIGN_STEP_FIELDS,
    FOREIGN_TASK,
    FOREIGN_TOP,
    FOREIGN_VALUE,
    FOREIGN_WHEN,
)
from runstream.runconfig.nodes import MappingNode, ScalarNode, SequenceNode
from runstream.runconfig.parse import ParsedConfig, notices, parse_config
from runstream.runconfig.problems import ConfigError, Problem, Typos, quoted
from runstream.runconfig.reading import read_nodes
from runstream.runconfig.refs import RefContext
from runstream.runconfig.resolve import MAX_ENTRY_BYTES, require_fitting_environment, run_configs
from runstream.runconfig.values import Value
from runstream.sealing import Keyring, seal_config, to_seal

HOST = "runtime: {type: host}"


def task(fields: str, source: str = "config.yml") -> ParsedConfig:
    return parse_config(f"runs:\n- name: r\n  tasks:\n  - name: t\n    {HOST}\n    {fields}\n", source=source)


def problems(text: str, source: str = "config.yml") -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        parse_config(text, source=source)
    return list(refused.value.problems)


def step(fields: str) -> str:
    return of_task(f"steps: [{fields}]")


def of_task(fields: str) -> str:
    return f"runs: [{{name: r, tasks: [{{name: u, {HOST}}}, {{name: t, {HOST}, {fields}}}]}}]"


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("needs", "depends"),
        ("if", "when"),
        ("env", "environment"),
        ("image", "runtime"),
        ("script", "steps"),
        ("uses", "steps"),
        ("stage", "depends"),
        ("services", "runtime"),
    ],
)
def test_a_common_word_of_another_system_names_the_word_to_write(word: str, ours: str) -> None:
    (problem,) = problems(of_task(f"{word}: x"))
    assert f'"{word}"' in problem.message
    assert ours in problem.hint
    parsed = parse_config(of_task(f"{word}: x"), source=".agola/config.yml")
    assert any(f'"{word}"' in warning.message and ours in warning.hint for warning in parsed.warnings)


PLACES: list[tuple[Mapping[str, str], tuple[FieldTable, ...], str]] = [
    (FOREIGN_TOP, (TOP,), "runs: [{name: r}]\nWORD: x"),
    (FOREIGN_RUN, (RUN,), "runs: [{name: r, WORD: x}]"),
    (FOREIGN_CONCURRENCY, (CONCURRENCY,), "runs: [{name: r, concurrency: {WORD: x}}]"),
    (FOREIGN_TASK, (TASK,), of_task("WORD: x")),
    (FOREIGN_DEPEND, (DEPEND,), of_task("depends: [{task: u, WORD: x}]")),
    (FOREIGN_RETRY, (RETRY,), of_task("retry: {max: 1, WORD: x}")),
    (FOREIGN_WHEN, (WHEN,), of_task("when: {WORD: x}")),
    (FOREIGN_PATTERNS, (PATTERNS,), of_task("when: {branch: {include: a, WORD: x}}")),
    (FOREIGN_VALUE, (VALUE,), of_task("environment: {A: {WORD: x}}")),
    (FOREIGN_RUNTIME, (RUNTIME,), "runs: [{name: r, tasks: [{name: t, runtime: {type: host, WORD: x}}]}]"),
    (
        FOREIGN_CONTAINER,
        (CONTAINER,),
        "runs: [{name: r, tasks: [{name: t, runtime: {containers: [{image: i, WORD: x}]}}]}]",
    ),
    (FOREIGN_STEP_FIELDS, (STEP, STEPS["run"]), step("{run: {command: make, WORD: x}}")),
    (FOREIGN_STEP_FIELDS, (STEP, STEPS["run"]), step("{type: run, command: make, WORD: x}")),
    (FOREIGN_STEP_FIELDS, (STEP, STEPS["clone"]), step("{clone: {WORD: x}}")),
]


@pytest.mark.parametrize(("words", "known", "text"), PLACES)
def test_a_word_of_another_system_is_an_error_that_names_ours(
    words: Mapping[str, str], known: tuple[FieldTable, ...], text: str
) -> None:
    for word, hint in words.items():
        assert not any(word in table for table in known)
        (problem,) = problems(text.replace("WORD", word))
        what = " here" if word in NAMES else ", a word of another CI system"
        assert (problem.message, problem.hint) == (f"unknown field {quoted(word)}{what}", hint)


@pytest.mark.parametrize(("words", "known", "text"), PLACES)
def test_below_agola_a_word_of_another_system_is_a_warning_unless_any_unknown_field_is_an_error(
    words: Mapping[str, str], known: tuple[FieldTable, ...], text: str
) -> None:
    source = "/r/.agola/config.yml"
    try:
        parse_config(text.replace("WORD", "zzz"), source=source)
        strict = False
    except ConfigError:
        strict = True
    for word, hint in words.items():
        if strict or any(Typos().of(word, tuple(table)) for table in known):
            assert [one.hint for one in problems(text.replace("WORD", word), source)] == [hint]
        else:
            warnings = parse_config(text.replace("WORD", word), source=source).warnings
            assert hint in [one.hint for one in warnings]


@pytest.mark.parametrize("other", ["", ", name: x", ", run: make"])
@pytest.mark.parametrize("source", ["config.yml", "/r/.agola/config.yml"])
def test_a_step_of_another_system_is_an_error_in_each_file(source: str, other: str) -> None:
    assert not FOREIGN_STEP.keys() & STEPS.keys()
    for word, hint in FOREIGN_STEP.items():
        (problem,) = problems(step(f"{{{word}: x{other}}}"), source)
        assert (quoted(word) in problem.message, problem.hint) == (True, hint)


def test_fields_beside_the_name_of_a_step_are_reported_with_their_place() -> None:
    (problem,) = problems(step("{name: build, run: make, tty: false}"))
    assert problem.hint == "indent the fields under the step's name: `- run: {command: …, name: …, tty: …}`"
    (problem,) = problems(step("{a: 1, b: 2}"))
    assert problem.hint == "indent the fields under the step's name"


@pytest.mark.parametrize(("word", "way_out"), [("manual", "approval: true"), ("on_failure", "depends"), ("x", "")])
def test_a_when_of_another_system_names_what_does_that_here(word: str, way_out: str) -> None:
    (problem,) = problems(of_task(f"when: {word}"))
    assert way_out in problem.hint


def test_the_words_of_common_pipelines_are_known() -> None:
    """Each of these is a field of a job, a step or their kin in one of the four systems."""
    task_words = "needs if env uses image script stage services runs-on strategy cache artifacts timeout rules only"
    step_words = "needs if env uses image script services cache artifacts timeout rules variables when shell with"
    assert not set(task_words.split()) - FOREIGN_TASK.keys()
    assert not set(step_words.split()) - FOREIGN_STEP.keys()
    assert not set(step_words.split()) - {"when", "shell"} - FOREIGN_STEP_FIELDS.keys()


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("on: push\njobs: {build: {runs-on: ubuntu, steps: []}}", "a GitHub Actions workflow"),
        ("stages: [a]\nbuild: {script: [make]}", "a GitLab CI file"),
        ("build: {script: [make]}", "a GitLab CI file"),
        ("steps: [{image: x, commands: [make]}]", "a Woodpecker CI file"),
        ("version: 2.1\njobs: {build: {docker: [{image: x}]}}\nworkflows: {w: {jobs: [build]}}", "a CircleCI file"),
    ],
)
def test_a_file_of_another_system_is_recognized(text: str, system: str) -> None:
    (problem,) = problems(text)
    assert problem.message == f"this looks like {system}: no runs defined"
    assert "from-github-actions" in problem.hint


@pytest.mark.parametrize(
    "field",
    ["task_timeout_interval", "no_output_timeout", "retry: {max: 1, backoff", "steps: [{clone: {step_timeout_interval"],
)
@pytest.mark.parametrize(
    ("interval", "message"),
    [("60", "60 is 60 nanoseconds"), ("300ms", "300ms is less than a second"), ("0", ""), ("60s", ""), ("1s", "")],
)
def test_an_interval_below_a_second_is_worth_a_warning(field: str, interval: str, message: str) -> None:
    closing = {"retry": "}", "steps": "}}]"}.get(field[:5], "")
    warnings = task(f"{field}: {interval}{closing}").warnings
    assert [(one.line, one.message) for one in warnings] == ([(6, message)] if message else [])
    assert message == "" or interval != "60" or warnings[0].hint == "for seconds write 60s"


@pytest.mark.parametrize(
    ("when", "path", "message"),
    [
        ('{branch: "release/*"}', "when.branch", '"release/*" is compared as it is, * included'),
        ('{ref: {include: [a, "b*"]}}', "when.ref.include[1]", '"b*" is compared as it is, * included'),
        ("{branch: }", "when", "this `when` can never match"),
        ("{}", "when", "this `when` can never match"),
        ("{branch: {exclude: a}}", "when", "this `when` can never match"),
        ("{branch: '/^release/.*/'}", "", ""),
        ("{tag: v1}", "", ""),
    ],
)
def test_a_when_that_does_not_do_what_it_seems_to_is_worth_a_warning(when: str, path: str, message: str) -> None:
    warnings = [(one.line, one.path, one.message) for one in task(f"when: {when}").warnings]
    assert warnings == ([(6, f"runs[0].tasks[0].{path}", message)] if message else [])


def test_numbers_and_booleans_in_an_environment_are_the_text_that_they_are_written_as() -> None:
    parsed = task("environment: {PORT: 8080, DEBUG: true, V: 1.10, OCTAL: 010, ON: on, E: ''}")
    texts = {"PORT": "8080", "DEBUG": "true", "V": "1.10", "OCTAL": "010", "ON": "on", "E": ""}
    assert parsed.runs[0].tasks[0].environment == {name: Value(text) for name, text in texts.items()}


@pytest.mark.parametrize("field", ["username", "password", "auth"])
def test_null_is_no_credential(field: str) -> None:
    (problem,) = problems(f"docker_registries_auth: {{h: {{{field}: }}}}\nruns: [{{name: r}}]")
    assert problem.path == f"docker_registries_auth.h.{field}"


def test_an_error_in_what_an_alias_names_is_at_the_line_of_the_alias() -> None:
    head = f"x-a: &a\n- run: one\nruns:\n- name: r\n  tasks:\n  - name: t\n    {HOST}\n"
    text = f"{head}    steps:\n    - *a\n    - run: two\n"
    (problem,) = problems(text)
    assert (problem.line, problem.path) == (9, "runs[0].tasks[0].steps[0]")
    assert "an alias of its own" in problem.hint


@pytest.mark.parametrize("value", ["$HOME/bin:$PATH", "${HOME}/x"])
def test_a_variable_that_is_not_expanded_is_worth_a_warning(value: str) -> None:
    (warning,) = task(f"environment: {{PATH: '{value}'}}").warnings
    assert (warning.line, warning.path) == (6, "runs[0].tasks[0].environment.PATH")
    assert "is not expanded" in warning.message
    assert "export PATH=" in warning.hint
    assert not task("environment: {PRICE: 5$, A: $1}").warnings


@pytest.mark.parametrize("make", [str, to_seal], ids=["value", "secret"])
@pytest.mark.parametrize("where", ["environment: {BIG: V}", "steps: [{run: {command: x, environment: {BIG: V}}}]"])
def test_a_value_that_no_process_can_take_is_refused_by_name_and_size(where: str, make: Callable[[str], Text]) -> None:
    parsed = task(where.replace("V", "{from_variable: V}"))
    keyring = Keyring.of([b"k" * 32])
    for size in (MAX_ENTRY_BYTES - 5, MAX_ENTRY_BYTES - 4, 140_000, 200_000):
        (run,) = run_configs(parsed, RefContext(), {"V": make("x" * size)})
        for config in (run.config, seal_config(run.config, keyring)):  # as it is created, as it is restarted
            if len("BIG") + size + 2 <= MAX_ENTRY_BYTES:
                require_fitting_environment(config)
                continue
            with pytest.raises(BadRequestError, match=f"BIG is {size:,} bytes, a process can take 131,072"):
                require_fitting_environment(config)


def test_variables_that_no_process_can_take_together_are_refused_with_their_task() -> None:
    many = ", ".join(f"V{n}: {{from_variable: V}}" for n in range(17))
    parsed = task(f"environment: {{{many}}}\n    steps: [{{run: {{command: x, environment: {{W: y, V1: z}}}}}}]")
    for size, fits in ((120_000, True), (131_000, False)):
        (run,) = run_configs(parsed, RefContext(), {"V": to_seal("x" * size)})
        if fits:
            require_fitting_environment(run.config)
            continue
        with pytest.raises(
            BadRequestError,
            match=r'step 0 of task "t" has variables of 2,09\d,\d{3} bytes, a process can take 1,966,080',
        ) as caught:
            require_fitting_environment(run.config)
        assert caught.value.code == "environmentTooLarge"


def test_the_bytes_of_a_secret_are_counted_not_its_letters() -> None:
    (run,) = run_configs(task("environment: {BIG: {from_variable: V}}"), RefContext(), {"V": to_seal("é" * 70_000)})
    with pytest.raises(BadRequestError, match="BIG is 140,000 bytes"):
        require_fitting_environment(run.config)


def test_fields_without_effect_are_reported() -> None:
    parsed = parse_config(
        "runs: [{name: r, tasks: [{name: a, runtime: {containers: [{image: python:3.12}]}, steps: [{run: x}]},"
        " {name: b, runtime: {type: host}}, {name: c, runtime: {type: host}, steps: [{save_cache: {key: '{{k}}'}}]}]}]"
    )
    assert [one.path for one in notices(parsed)] == [
        "runs[0].tasks[0].runtime",
        "runs[0].tasks[1].steps",
        "runs[0].tasks[2].steps[0]",
    ]


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, 'task "t0" needs an executor that runs containers'),
        (2, 'task "t0" and 1 other task need an executor that runs containers'),
        (40, 'task "t0" and 39 other tasks need an executor that runs containers'),
    ],
)
def test_a_file_says_once_that_its_tasks_need_an_executor_with_containers(count: int, told: str) -> None:
    pod = "runtime: {containers: [{image: python:3.12}]}"
    runs = (f"{{name: r{at}, tasks: [{{name: t{at}, {pod}, steps: [{{run: x}}]}}]}}" for at in range(count))
    parsed = parse_config(f"runs: [{', '.join(runs)}]")
    assert [(one.path, one.message) for one in notices(parsed)] == [("runs[0].tasks[0].runtime", told)]
    assert notices(parsed, pods=False) == []


def test_cr_lf_is_a_line_end_in_programs_and_what_they_import() -> None:
    source = (
        "{ runs: [{ name: 'r', tasks: [{ name: 't', runtime: { type: 'host' },\r\n"
        "steps: [{ run: { name: 'n', command: |||\r\n  echo one\r\n  test\r\n||| } },\r\n"
        "{ run: import 'n.libsonnet' }] }] }] }\r\n"
    )
    imports = {"n.libsonnet": "{ name: 'n', command: |||\r\n  n\r\n||| }"}
    (run,) = parse_file("config.jsonnet", source, RefContext(), imports=imports).runs
    assert "command='n\\n'" in repr(run.tasks[0].steps[1])
    assert "command='echo one\\ntest\\n'" in repr(run.tasks[0].steps[0])
    escaped = "{ runs: [{ name: 'r', tasks: [{ name: 't', runtime: { type: 'host' }, steps: [{ run: 'x\\r' }] }] }] }"
    assert "command='x\\r'" in repr(parse_file("config.jsonnet", escaped, RefContext()).runs[0].tasks[0].steps[0])


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("{image: python:3.12}", {"image": "python:3.12"}),
        ("[http://x/y, 12:30]", ["http://x/y", "12:30"]),
        ("{a:b}", {"a:b": None}),
        ('{"a":b, c: d:e}', {"a": "b", "c": "d:e"}),
        ("{a: b::c:d}\n# x:y\n", {"a": "b::c:d"}),
        ("k: |\n  a:b\nf: {x: y:z, q: 'm:n', r: \"o:p\"}\n", {"k": "a:b\n", "f": {"x": "y:z", "q": "m:n", "r": "o:p"}}),
        ("{a: \ue000:b}", {"a": "\ue000:b"}),
        ("{a: !local b:c, d: !!str 1, e: !own {f: g:h}}", {"a": "b:c", "d": "1", "e": {"f": "g:h"}}),
    ],
)
def test_a_colon_inside_a_plain_text_is_part_of_it_in_flow_style_too(text: str, meaning: object) -> None:
    assert plain(read_nodes(text, "config.yml")) == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("[a:]", [{"a": None}]),
        ("{a:}", {"a": None}),
        ("{a:{}}", {"a": {}}),
        ("{a:[]}", {"a": []}),
        ("{a :[b]}", {"a": ["b"]}),
        ("[a:, b]", [{"a": None}, "b"]),
        ("{a:, b: c}", {"a": None, "b": "c"}),
        ("[a:b:, c::]", [{"a:b": None}, {"c:": None}]),
        ("[:x]", [":x"]),
        ("{a: :x}", {"a": ":x"}),
        ("[a :b,:c]", ["a :b", ":c"]),
        ("[::]", [{":": None}]),
        ("{'a' :b, \"c\" :[d:], e:f: g}", {"a": "b", "c": [{"d": None}], "e:f": "g"}),
        ("{a: &k k, *k :b, c:{}}", {"a": "k", "k": "b", "c": {}}),
        ("k: x:, y:[]\nl: |\n  [a:]\nf: [a:, 'b:,', \"c:[] :d\"] # e:,", {
            "k": "x:, y:[]", "l": "[a:]\n", "f": [{"a": None}, "b:,", "c:[] :d"],
        }),
    ],
)  # fmt: skip
def test_a_colon_before_a_bracket_or_comma_ends_a_key_and_one_before_a_text_begins_it(
    text: str, meaning: object
) -> None:
    assert plain(read_nodes(text, "config.yml")) == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ('[a":b]', ['a":b']),
        ("{a: b':c, 'd':e, \"f\":g:h}", {"a": "b':c", "d": "e", "f": "g:h"}),
        ('["a":b, "c" :d, e":f]', [{"a": "b"}, {"c": "d"}, 'e":f']),
        ("[:%a, :@b, :`c, :|d, :>e]", [":%a", ":@b", ":`c", ":|d", ":>e"]),
        ("[:&a, :*b, :!c, x :&d]", [":&a", ":*b", ":!c", "x :&d"]),
        ("{'a' :!local b, \"c\" :&d e, 'f' :*d}", {"a": "b", "c": "e", "f": "e"}),
        ("[a\n ? b,\n c\n\n ?\n d]", ["a ? b", "c\n? d"]),
        ("{a: b\n  ? c\n  ? d, ? e\n: f, g: 'h\n ? i'}", {"a": "b ? c ? d", "e": "f", "g": "h ? i"}),
        ("a: b\n  ? c\n? d\n: [e\n ? f]\n", {"a": "b ? c", "d": ["e ? f"]}),
    ],
)
def test_plain_texts_in_flow_style_end_where_yaml_1_2_says(text: str, meaning: object) -> None:
    assert plain(read_nodes(text, "config.yml")) == meaning


@pytest.mark.parametrize(
    "text", ["[:]", "[: x]", "['a'\n ? b]", "[[a]\n ? b]", "[a:,,]", "{a:[}", "[" * 1000 + ":,", "[a:" * 300_000]
)
def test_colons_that_make_no_value_or_a_key_that_is_no_text_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        read_nodes(text, "config.yml")


@st.composite
def _flow_texts(draw: st.DrawFn, depth: int = 2) -> tuple[str, object]:
    """A flow text written as tightly as YAML 1.2 allows, and its value."""
    kind = draw(st.sampled_from(("plain", "quoted", *(("list", "map") if depth else ()))))
    if kind == "plain":
        text = draw(_plain)
        return text, text
    if kind == "quoted":
        text = draw(st.text("a:,[]{} ", max_size=6))
        return draw(st.sampled_from((f"'{text}'", f'"{text}"'))), text
    items = draw(st.lists(_flow_texts(depth - 1), max_size=3))
    comma = draw(st.sampled_from((",", ", ", " ,")))
    if kind == "list":
        return f"[{comma.join(text for text, _ in items)}]", [value for _, value in items]
    keys = draw(st.lists(_plain, min_size=len(items), max_size=len(items), unique=True))
    entries, meaning = [], {}
    for key, (text, value) in zip(keys, items, strict=True):
        tight = text[0] in "[{"
        empty = draw(st.booleans())
        meaning[key] = None if empty else value
        entries.append(f"{key}:" if empty else f"{key}{draw(st.sampled_from((':', ' :') if tight else (': ',)))}{text}")
    return f"{{{comma.join(entries)}}}", meaning


_plain = st.from_regex(r":?[ab](:?[ab]| :?b)?", fullmatch=True)


@given(_flow_texts())
def test_a_tight_flow_text_is_what_yaml_1_2_says(generated: tuple[str, object]) -> None:
    text, meaning = generated
    assert plain(read_nodes(f"k: a:, b:[] :c\nf: {text}\n", "a.yml")) == {"k": "a:, b:[] :c", "f": meaning}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("{URL: https://host/path?a=1}", {"URL": "https://host/path?a=1"}),
        ("[http://a/?x=1, a?b, a?]", ["http://a/?x=1", "a?b", "a?"]),
        ("{a: is it ok?, b: c:d}", {"a": "is it ok?", "b": "c:d"}),
        ("steps: [{run: test -f a?b}]", {"steps": [{"run": "test -f a?b"}]}),
        ("[?x, ??, -?, :?, a:?b, a ?, a ? ? b, a - ? b]",
         ["?x", "??", "-?", ":?", "a:?b", "a ?", "a ? ? b", "a - ? b"]),
        ("{?a: ?b, c?: d, \"e\":?f, ?: g}", {"?a": "?b", "c?": "d", "e": "?f", "?": "g"}),
        ("{a, b: a?%c, d: e?'f, g: h?>}", {"a": None, "b": "a?%c", "d": "e?'f", "g": "h?>"}),
        ("{? a : b, ? c?d : e}", {"a": "b", "c?d": "e"}),
        ("? a\n: [b?c]\n? ?d\n: |\n  ?e ? f\n", {"a": ["b?c"], "?d": "?e ? f\n"}),
        ("{a: 'b?', c: \"?d\", e: \ue000?\ue001} # ? g?", {"a": "b?", "c": "?d", "e": "\ue000?\ue001"}),
    ],
)  # fmt: skip
def test_a_question_mark_in_a_plain_text_is_part_of_it_in_flow_style_too(text: str, meaning: object) -> None:
    assert plain(read_nodes(text, "config.yml")) == meaning


@pytest.mark.parametrize(("text", "line"), [("[a?b,\n c?d\n", 3), ("a: [?b,\n c?d e]\nb: [f\n", 4), ("[a?b,\n? &]", 2)])
def test_an_error_beside_question_marks_names_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        read_nodes(text, "config.yml")
    assert caught.value.problems[0].line == line


def _is_plain_in_flow(text: str) -> bool:
    """Return whether YAML 1.2 reads one line as a plain text in flow style (rule ns-plain for flow-in)."""
    first = text[0]
    if first in "#&*!|>'\"%@`" or (first in "?:-" and text[1:2] in ("", " ")):
        return False
    return text == text.strip() and not re.search(r" #|:( |$)", text)


def _looks_like_a_key(text: str) -> bool:
    """Return whether a text holds what is told from a key by its context alone: `- ?`, `":"` and `:"`."""
    return re.search(r"(^|[ :])[-:?]+ +\?( |$)|[\"']:[:?-]*[\"']|(^| )[:?-]*:[ -]*[\"']", text) is not None


_flow_plain = (
    st.text("a1/.?:-#&*!|>'\"%@` ", min_size=1, max_size=12)
    .map(lambda text: f"{text}a" if text[-1] == " " else text)
    .filter(_is_plain_in_flow)
    .filter(lambda text: not text.startswith(("---", "...")))
    .filter(lambda text: not _looks_like_a_key(text))
)


@given(st.lists(_flow_plain, min_size=1, max_size=3, unique=True))
def test_each_plain_text_of_yaml_1_2_is_read_as_written_in_flow_style(texts: list[str]) -> None:
    assert plain(read_nodes(f"[{', '.join(texts)}]", "a.yml")) == texts
    entries = {f"k{at}": text for at, text in enumerate(texts)}
    assert plain(read_nodes(f"{{{', '.join(f'{key}: {text}' for key, text in entries.items())}}}", "a.yml")) == entries


words = st.text("ab:/.1é", min_size=1, max_size=6).filter(lambda w: w[0] not in ":." and w[-1] != ":")


@given(st.lists(words, min_size=1, max_size=5))
def test_a_flow_list_of_plain_texts_is_the_block_list_of_them(texts: list[str]) -> None:
    block = "".join(f"- {text}\n" for text in texts)
    assert plain(read_nodes(f"[{', '.join(texts)}]", "a.yml")) == plain(read_nodes(block, "a.yml"))


def plain(node: object) -> object:
    if isinstance(node, ScalarNode):
        return None if node.kind == "null" else node.text
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    assert isinstance(node, MappingNode)
    return {key: plain(value) for key, value in node.entries.items()}
