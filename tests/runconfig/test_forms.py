"""Every way in which something may be written, and what it means."""

from __future__ import annotations

import pytest

from runstream.events.run_config import SaveContent, Volume
from runstream.runconfig.parse import parse_config
from runstream.runconfig.steps import (
    CloneStep,
    RestoreCacheStep,
    RestoreWorkspaceStep,
    RunStep,
    SaveCacheStep,
    SaveToWorkspaceStep,
    StepSpec,
)
from runstream.runconfig.tasks import DependSpec, RuntimeSpec, TaskSpec
from runstream.runconfig.values import Value


def task(fields: str = "", runtime: str = "{type: host}") -> TaskSpec:
    first = f"  - name: t\n    runtime: {runtime}\n    {fields}\n"
    text = f"runs:\n- name: r\n  tasks:\n{first}  - {{name: u, runtime: {runtime}}}\n"
    return parse_config(text).runs[0].tasks[0]


def step(entry: str) -> StepSpec:
    (found,) = task(f"steps: [{entry}]").steps
    return found


def test_defaults() -> None:
    parsed = parse_config("runs: [{name: r, tasks: [{name: t, runtime: {containers: [{}]}}]}, {name: s}]")
    (found,) = parsed.runs[0].tasks
    assert parsed.runs[1].tasks == ()
    assert (found.working_dir, found.shell, found.user) == ("~/project", "", "")
    assert (found.ignore_failure, found.approval, found.when, found.task_timeout_interval) == (False, False, None, None)
    assert (found.runtime.type, found.runtime.arch) == ("pod", "")
    (container,) = found.runtime.containers
    assert (container.image, container.user, container.privileged, container.entrypoint) == ("", "", False, "")
    assert task("working_dir: ''").working_dir == "~/project"


def test_null_is_as_if_it_were_not_there() -> None:
    assert task("environment:\n    steps: ~\n    depends: null\n    when:\n    shell:\n    approval:") == task()


def test_keys_are_matched_without_case() -> None:
    parsed = parse_config("Runs: [{Name: r, TASKS: [{name: t, runTime: {Type: host}, steps: [{TYPE: clone}]}]}]")
    assert parsed.runs[0].tasks[0].runtime == RuntimeSpec("host", "", (), {})
    assert parsed.runs[0].tasks[0].steps == (CloneStep(),)


def test_numbers_and_booleans_in_text_fields_are_their_text() -> None:
    assert parse_config("runs: [{name: 1.10}, {name: true}, {name: 010}]").runs[0].name == "1.10"
    found = task(runtime="{arch: 386, containers: [{image: 7, user: 1000}]}").runtime
    assert (found.arch, found.containers[0].image, found.containers[0].user) == ("386", "7", "1000")


@pytest.mark.parametrize(
    ("word", "meaning"), [("true", True), ("Yes", True), ("on", True), ("no", False), ("OFF", False)]
)
def test_words_for_booleans(word: str, meaning: bool) -> None:
    assert task(f"approval: {word}").approval is meaning


def test_what_aliases_name_may_be_kept_under_a_key_of_its_own() -> None:
    text = "x-host: &host {type: host}\nruns: [{name: r, tasks: [{name: t, runtime: *host}]}]"
    assert parse_config(text).runs[0].tasks[0].runtime.type == "host"


def test_values() -> None:
    found = task("environment: {A: a, B: {from_variable: b}, C: {}, D: yes, E: '10', F: ''}").environment
    assert found["B"] == Value("b", "from_variable")
    assert {name: value.resolved({"b": "secret"}) for name, value in found.items()} == {
        "A": "a", "B": "secret", "C": "", "D": "yes", "E": "10", "F": "",
    }  # fmt: skip
    assert found["B"].resolved({}) == ""


def test_containers() -> None:
    found = task(
        runtime="{type: pod, containers: [{image: a, entrypoint: sleep 1, privileged: true, auth: {username: x}, "
        "volumes: [{path: /a, tmpfs: {}}, {path: /b, tmpfs: {size: 1Gi}}, {path: /c, tmpfs: {size: 10}}]}, {image: b}]}"
    ).runtime
    assert found.containers[0].volumes == (Volume("/a", 0), Volume("/b", 1 << 30), Volume("/c", 10))
    assert found.containers[0].privileged
    assert [container.image for container in found.containers] == ["a", "b"]


def test_registries() -> None:
    found = task("docker_registries_auth: {index.docker.io: {username: u, password: {from_variable: p}}}")
    auth = found.docker_registries_auth["index.docker.io"]
    assert (auth.type, auth.username, auth.password, auth.auth) == (
        "basic", Value("u"), Value("p", "from_variable"), Value(""),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "meaning"),
    [
        ("u", DependSpec("u", ())),
        ("{task: u}", DependSpec("u", ())),
        ("{task: u, conditions: }", DependSpec("u", ())),
        ("{task: u, conditions: [on_failure, on_skipped]}", DependSpec("u", ("on_failure", "on_skipped"))),
        ("{u: [on_success]}", DependSpec("u", ("on_success",))),
        ("{u: []}", DependSpec("u", ())),
    ],
)
def test_depends(entry: str, meaning: DependSpec) -> None:
    assert task(f"depends: [{entry}]").depends == (meaning,)


CONTENTS = "contents: [{source_dir: dist, dest_dir: /d, paths: ['*.whl']}, {source_dir: x}]"


@pytest.mark.parametrize(
    ("entry", "meaning"),
    [
        ("{clone: }", CloneStep()),
        ("{type: clone}", CloneStep()),
        ("{clone: {depth: 3, recurse_submodules: true}}", CloneStep(depth=3, recurse_submodules=True)),
        ("{clone: {depth: null}}", CloneStep()),
        ("{run: make}", RunStep(name="make", command="make", environment={})),
        ("{type: run, command: make}", RunStep(name="make", command="make", environment={})),
        ("{run: {command: make, name: n}}", RunStep(name="n", command="make", environment={})),
        (
            "{run: {command: a, environment: {X: y}, working_dir: w, shell: bash, tty: false}}",
            RunStep(  # noqa: S604 - a step's field
                name="a", command="a", environment={"X": Value("y")}, working_dir="w", shell="bash", tty=False
            ),
        ),
        ('{run: {command: "a\\nb", name: both}}', RunStep(name="both", command="a\nb", environment={})),
        (
            f"{{save_to_workspace: {{{CONTENTS}}}}}",
            SaveToWorkspaceStep(contents=(SaveContent("dist", "/d", ("*.whl",)), SaveContent("x", "", ()))),
        ),
        (
            f"{{save_cache: {{key: 'k-{{{{ arch }}}}', {CONTENTS}}}}}",
            SaveCacheStep(
                key="k-{{ arch }}", contents=(SaveContent("dist", "/d", ("*.whl",)), SaveContent("x", "", ("**",)))
            ),
        ),
        ("{restore_workspace: }", RestoreWorkspaceStep()),
        ("{restore_workspace: {name: n, dest_dir: .}}", RestoreWorkspaceStep(name="n", dest_dir=".")),
        ("{restore_cache: {keys: [a, b], dest_dir: d}}", RestoreCacheStep(keys=("a", "b"), dest_dir="d")),
    ],
)
def test_steps(entry: str, meaning: StepSpec) -> None:
    assert step(entry) == meaning


def test_an_unnamed_step_has_its_command_cut_to_100_bytes_as_name() -> None:
    assert step(f"{{run: {'é' * 80}}}").name == "é" * 50
    assert step(f"{{run: a{'é' * 80}}}").name == "a" + "é" * 49


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("1h30m", 5_400_000_000_000), ("10", 10), ("'0'", 0), ("1.9", 1), ("-5s", -5_000_000_000)]
)
def test_timeouts(text: str, nanoseconds: int) -> None:
    assert task(f"task_timeout_interval: {text}").task_timeout_interval == nanoseconds
