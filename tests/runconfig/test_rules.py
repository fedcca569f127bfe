"""Every rule of the format: what breaks it is refused, with the path, the line and what to do."""

from __future__ import annotations

import orjson
import pytest

from runstream.errors import Kind
from runstream.runconfig.parse import parse_config
from runstream.runconfig.problems import MAX_PROBLEMS, ConfigError

TASK = """
runs:
  - name: r
    tasks:
      - name: t
        runtime: {type: host}
        @
"""
RUN = """
runs:
  - name: r
    tasks: []
    @
"""
HOST = "runtime: {type: host}"


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return caught.value


def task(fields: str) -> str:
    return TASK.replace("@", fields)


def step(entry: str) -> str:
    return task(f"steps:\n          - {entry}")


def run(fields: str) -> str:
    return RUN.replace("@", fields)


def runtime(fields: str) -> str:
    return f"runs:\n- name: r\n  tasks:\n  - name: t\n    runtime: {fields}\n"


def tasks(*depends: str) -> str:
    """Tasks t0, t1 … with these depends."""
    lines = [f"  - {{name: t{i}, {HOST}, depends: [{depend}]}}" for i, depend in enumerate(depends)]
    return "runs:\n- name: r\n  tasks:\n" + "\n".join(lines) + "\n"


CASES: list[tuple[str, str, str]] = [
    # the whole file
    ("", "", "no runs defined"),
    ("runs:", "", "no runs defined"),
    ("runs: []", "runs", "no runs defined"),
    ("runs: 1", "runs", "expected a list, found the number 1"),
    ("- runs", "", "expected a map, found a list"),
    ("run: []", "run", 'unknown field "run"'),
    ("Runs: []\nruns: []", "runs", "given twice"),
    ("runs: [{name: r, tasks: []}]\ntask_timeout_interval: soon", "task_timeout_interval", "is not a duration"),
    ("runs: [{name: r}]\ndocker_registries_auth: {h: }", "docker_registries_auth.h", 'auth "h" is empty'),
    (
        "runs: [{name: r}]\ndocker_registries_auth: {h: {usernam: x}}",
        "docker_registries_auth.h.usernam",
        "unknown field",
    ),
    # a run
    ("runs:\n-", "runs[0]", "run at index 0 is empty"),
    ("runs: [text]", "runs[0]", "expected a map, found a text"),
    ("runs: [{tasks: []}]", "runs[0]", "run at index 0 has empty name"),
    ("runs: [{name: ''}]", "runs[0].name", "run at index 0 has empty name"),
    ("runs: [{name: [a]}]", "runs[0].name", "expected a text, found a list"),
    (f"runs: [{{name: {'é' * 51}}}]", "runs[0].name", "too long"),
    ("runs: [{name: a}, {name: a}]", "runs[1].name", 'duplicate run name "a"'),
    (run("task: []"), "runs[0].task", 'unknown field "task"'),
    (run("when: always"), "runs[0].when", "expected a map"),
    (run("task_timeout_interval: [1s]"), "runs[0].task_timeout_interval", "expected a duration"),
    (run("task_timeout_interval: .nan"), "runs[0].task_timeout_interval", "is not a duration"),
    (run("task_timeout_interval: 1e999"), "runs[0].task_timeout_interval", "is not a duration"),
    (run("task_timeout_interval: 300000h0m300000000h"), "runs[0].task_timeout_interval", "292 years"),
    # a task
    ("runs:\n- name: r\n  tasks:\n  -", "runs[0].tasks[0]", 'run "r": task at index 0 is empty'),
    (f"runs: [{{name: r, tasks: [{{{HOST}}}]}}]", "runs[0].tasks[0]", "task at index 0 has empty name"),
    (f"runs: [{{name: r, tasks: [{{name: {'x' * 101}, {HOST}}}]}}]", "runs[0].tasks[0].name", "too long"),
    (f"runs: [{{name: r, tasks: [{{name: t, {HOST}}}, {{name: t, {HOST}}}]}}]", "runs[0].tasks[1].name", "duplicate"),
    ("runs: [{name: r, tasks: {}}]", "runs[0].tasks", "expected a list, found a map"),
    (task("step: []"), "runs[0].tasks[0].step", 'unknown field "step"'),
    (task("approval: maybe"), "runs[0].tasks[0].approval", "expected true or false"),
    (task("ignore_failure: 'true'"), "runs[0].tasks[0].ignore_failure", "expected true or false"),
    (task("environment: [A]"), "runs[0].tasks[0].environment", "expected a map"),
    (task("environment: {A: }"), "runs[0].tasks[0].environment.A", "unknown value format"),
    (task("environment: {A: [x]}"), "runs[0].tasks[0].environment.A", "expected a text, found a list"),
    (task("environment: {A: {from_varible: x}}"), "runs[0].tasks[0].environment.A.from_varible", "unknown field"),
    (task("environment: {A: {from_variable: 1}}"), "runs[0].tasks[0].environment.A.from_variable", "expected a text"),
    (task("environment: {'A=B': x}"), 'runs[0].tasks[0].environment["A=B"]', "has no '='"),
    (task("working_dir: [a]"), "runs[0].tasks[0].working_dir", "expected a text"),
    (task("docker_registries_auth: {h: }"), "runs[0].tasks[0].docker_registries_auth.h", "is empty"),
    # a runtime
    ("runs: [{name: r, tasks: [{name: t}]}]", "runs[0].tasks[0]", "runtime is not defined"),
    (runtime("{type: vm}"), "runs[0].tasks[0].runtime", 'wrong type "vm"'),
    (runtime("{}"), "runs[0].tasks[0].runtime", "at least one container"),
    (runtime("{type: pod, containers: []}"), "runs[0].tasks[0].runtime", "at least one container"),
    (runtime("{type: host, containers: [{image: a}]}"), "runs[0].tasks[0].runtime", "a host has no containers"),
    (runtime("{type: host, arch: mips}"), "runs[0].tasks[0].runtime", 'invalid arch "mips"'),
    (runtime("{containers: [null]}"), "runs[0].tasks[0].runtime.containers[0]", "the container is empty"),
    (runtime("{containers: [{imagee: a}]}"), "runs[0].tasks[0].runtime.containers[0].imagee", "unknown field"),
    (runtime("{containers: [{volumes: [{path: /a}]}]}"), "runs[0].tasks[0].runtime.containers[0].volumes[0]", "tmpfs"),
    (runtime("{containers: [{volumes: [null]}]}"), "runs[0].tasks[0].runtime.containers[0].volumes[0]", "has no path"),
    *(
        (
            runtime(f"{{containers: [{{Volumes: [{{{path} tmpfs: {{}}}}]}}]}}"),
            f"runs[0].tasks[0].runtime.containers[0].Volumes[0]{field}",
            "the volume has no path",
        )
        for path, field in (("", ""), ("path: ,", ""), ("path: '',", ".path"))
    ),
    (
        runtime("{containers: [{volumes: [{tmpfs: {size: lots}}]}]}"),
        "runs[0].tasks[0].runtime.containers[0].volumes[0].tmpfs.size",
        "not an amount of bytes",
    ),
    (
        runtime("{containers: [{volumes: [{tmpfs: {size: -1}}]}]}"),
        "runs[0].tasks[0].runtime.containers[0].volumes[0].tmpfs.size",
        "negative",
    ),
    (
        runtime("{containers: [{volumes: [{tmpfs: {size: true}}]}]}"),
        "runs[0].tasks[0].runtime.containers[0].volumes[0].tmpfs.size",
        "found the boolean true",
    ),
    *(
        (
            runtime(f"{{containers: [{{volumes: [{{path: '{path}', tmpfs: {{}}}}]}}]}}"),
            "runs[0].tasks[0].runtime.containers[0].volumes[0].path",
            "which the container has already",
        )
        for path in ("/", "/proc", "/proc/sys", "//sys/", "/a/../dev")
    ),
    *(
        (
            runtime(f"{{containers: [{{image: a, resources: {{memory: {memory}}}}}]}}"),
            "runs[0].tasks[0].runtime.containers[0].resources.memory",
            "less than a container engine gives",
        )
        for memory in ("1", "5Mi", "6291455")
    ),
    *(
        (
            runtime(f"{{containers: [{{image: a, resources: {{cpu: {cpu}}}}}]}}"),
            "runs[0].tasks[0].runtime.containers[0].resources.cpu",
            "less than a container engine gives",
        )
        for cpu in ("0.001", "9m", "0.009", "0.00001")
    ),
    *(
        (
            runtime(f"{{containers: [{{volumes: [{{path: '{path}', tmpfs: {{}}}}]}}]}}"),
            "runs[0].tasks[0].runtime.containers[0].volumes[0].path",
            "is not absolute",
        )
        for path in ("scratch", "./a", "~/a")
    ),
    *(
        (
            runtime(f"{{containers: [{{volumes: [{{path: /a, tmpfs: {{}}}}, {{path: '{path}', tmpfs: {{}}}}]}}]}}"),
            "runs[0].tasks[0].runtime.containers[0].volumes[1].path",
            "duplicate volume",
        )
        for path in ("/a", "/a/", "/b/../a")
    ),
    # depends
    (task("depends: t"), "runs[0].tasks[0].depends", "expected a list"),
    (tasks("1"), "runs[0].tasks[0].depends[0]", "unsupported depend entry format"),
    (tasks("null"), "runs[0].tasks[0].depends[0]", "unsupported depend entry format"),
    (tasks("{}"), "runs[0].tasks[0].depends[0]", "no task is named"),
    (tasks("", "{t0: x}"), "runs[0].tasks[1].depends[0]", "no task is named"),
    (tasks("", "{task: t0, conditions: on_success}"), "runs[0].tasks[1].depends[0].conditions", "expected a list"),
    (tasks("", "{t0: [on_sucess]}"), "runs[0].tasks[1].depends[0].t0[0]", 'unknown condition "on_sucess"'),
    (tasks("", "{t0: [1]}"), "runs[0].tasks[1].depends[0].t0[0]", "expected a text"),
    (tasks("", "t9"), "runs[0].tasks[1].depends[0]", 'run task "t9" needed by task "t1" doesn\'t exist'),
    (tasks("", "t0, t0"), "runs[0].tasks[1].depends[1]", "duplicate task dependency"),
    (tasks("t0"), "runs[0].tasks[0]", 'circular dependency between task "t0" and tasks "t0"'),
    (tasks("t1", "t0"), "runs[0].tasks[0]", 'circular dependency between task "t0" and tasks "t1"'),
    (tasks("", "t0", "t0, t1"), "runs[0].tasks[2]", 'task "t2" and its dependency "t1" have both a dependency'),
    # steps
    (step("clone"), "runs[0].tasks[0].steps[0]", "a step is a map, not a text"),
    (step("make test"), "runs[0].tasks[0].steps[0]", "expected a step, found a text"),
    (step("null"), "runs[0].tasks[0].steps[0]", "expected a step, found null"),
    (step("{}"), "runs[0].tasks[0].steps[0]", "the step is empty"),
    (step("[clone]"), "runs[0].tasks[0].steps[0]", "expected a step, found a list"),
    (step("{clone: , run: a}"), "runs[0].tasks[0].steps[0]", "more than one step name"),
    (step("{type: 1}"), "runs[0].tasks[0].steps[0].type", "expected a text"),
    (step("{type: rum}"), "runs[0].tasks[0].steps[0].type", 'unknown step type "rum"'),
    (step("{clones: }"), "runs[0].tasks[0].steps[0].clones", 'unknown step type "clones"'),
    (step("{clone: deep}"), "runs[0].tasks[0].steps[0].clone", "expected a map of the step's fields"),
    (step("{clone: {depth: 0}}"), "runs[0].tasks[0].steps[0].clone.depth", "at least 1"),
    (step("{clone: {depth: 1.5}}"), "runs[0].tasks[0].steps[0].clone.depth", "expected a whole number"),
    (step("{clone: {when: {branches: a}}}"), "runs[0].tasks[0].steps[0].clone.when.branches", "unknown field"),
    (step("{run: 10}"), "runs[0].tasks[0].steps[0].run", "expected a text, found the number 10"),
    (step("{run: }"), "runs[0].tasks[0].steps[0].run", "a run step needs a command"),
    (step("{run: ''}"), "runs[0].tasks[0].steps[0].run", "the command of a run step is empty"),
    (step("{run: [a]}"), "runs[0].tasks[0].steps[0].run", "expected a map of the step's fields"),
    (step("{type: run}"), "runs[0].tasks[0].steps[0]", "a run step needs a command"),
    (step('{run: "a\\n"}'), "runs[0].tasks[0].steps[0].run", "missing step name"),
    (step('{type: run, command: "a\\nb"}'), "runs[0].tasks[0].steps[0]", "missing step name"),
    (step("{run: {command: a, tty: 1}}"), "runs[0].tasks[0].steps[0].run.tty", "expected true or false"),
    (step("{run: {command: a, name: 1}}"), "runs[0].tasks[0].steps[0].run.name", "expected a text"),
    (step("{save_cache: {contents: []}}"), "runs[0].tasks[0].steps[0].save_cache", "needs a key"),
    (step("{restore_cache: {keys: []}}"), "runs[0].tasks[0].steps[0].restore_cache", "at least one key"),
    (step("{restore_cache: {keys: k}}"), "runs[0].tasks[0].steps[0].restore_cache.keys", "expected a list"),
    (
        step("{save_to_workspace: {contents: {}}}"),
        "runs[0].tasks[0].steps[0].save_to_workspace.contents",
        "list",
    ),
    # when
    (task("when: {branch: 1}"), "runs[0].tasks[0].when.branch", "expected a text or a list of texts"),
    (task("when: {branch: [1]}"), "runs[0].tasks[0].when.branch[0]", "expected a text"),
    (task("when: {branch: {only: a}}"), "runs[0].tasks[0].when.branch.only", "unknown field"),
    (task("when: {branch: {include: {}}}"), "runs[0].tasks[0].when.branch.include", "expected a text or a list"),
    (task("when: {ref: '/(/'}"), "runs[0].tasks[0].when.ref", "not a regular expression: missing )"),
    (task("when: {ref: '#(?=a)#'}"), "runs[0].tasks[0].when.ref", "not a regular expression"),
    (task(f"when: {{ref: /{'a' * 5000}/}}"), "runs[0].tasks[0].when.ref", "longer than 4096 bytes"),
    (task("when: {ref: '/((a{1000}){1000})/'}"), "runs[0].tasks[0].when.ref", "not a regular expression"),
]


@pytest.mark.parametrize(("text", "path", "message"), CASES)
def test_what_breaks_a_rule_is_named(text: str, path: str, message: str) -> None:
    error = refused(text)
    found = [problem for problem in error.problems if problem.path == path and message in problem.message]
    assert found, "\n".join(map(str, error.problems))
    assert error.kind is Kind.BAD_REQUEST
    assert error.code == "invalidConfig"


def test_every_problem_is_reported_together_in_the_order_of_the_file() -> None:
    error = refused(
        "runs:\n"
        "  - name: build\n"
        "    task_timeout_interval: soon\n"
        "    tasks:\n"
        "      - name: a\n"
        "        runtime: {type: host, arch: mips}\n"
        "        step:\n"
        "          - run: make\n"
        "      - name: b\n"
        "        runtime: {type: host}\n"
        "        depends: [c]\n"
        "        steps:\n"
        "          - run:\n"
        "              comand: make\n"
    )
    assert [(problem.line, problem.path) for problem in error.problems] == [
        (3, "runs[0].task_timeout_interval"),
        (6, "runs[0].tasks[0].runtime"),
        (7, "runs[0].tasks[0].step"),
        (11, "runs[0].tasks[1].depends[0]"),
        (13, "runs[0].tasks[1].steps[0].run"),
        (14, "runs[0].tasks[1].steps[0].run.comand"),
    ]
    assert error.problems[2].hint == "did you mean 'steps'?"
    assert error.problems[5].hint == "did you mean 'command'?"
    assert "config.yml is not valid: line 3, runs[0].task_timeout_interval" in error.message
    assert error.message.endswith("and 3 more")
    assert orjson.loads(orjson.dumps(error.details))["problems"][0]["line"] == 3


def test_past_a_hundred_problems_they_are_only_counted() -> None:
    error = refused("runs:\n" + "".join(f"- {{name: r{i}, task: []}}\n" for i in range(500)))
    assert len(error.problems) == MAX_PROBLEMS
    assert error.omitted == 400
    assert error.message.endswith("and 497 more")


def test_too_many_tasks_in_a_run_are_refused() -> None:
    error = refused("runs:\n- name: r\n  tasks:\n" + f"  - {{name: t, {HOST}}}\n" * 2001)
    assert any("at most 2000 tasks" in problem.message for problem in error.problems) or error.omitted


def test_a_cycle_is_reported_once_with_its_path() -> None:
    error = refused(tasks("t2", "t0", "t1", "t4", "t3"))
    assert [problem.hint for problem in error.problems] == [
        '"t0" needs "t2" needs "t1" needs "t0": leave one of these dependencies out',
        "",
        "",
        '"t3" needs "t4" needs "t3": leave one of these dependencies out',
        "",
    ]


def test_a_command_of_several_lines_is_advised_a_name() -> None:
    (problem,) = refused(step('{run: "\\n  make all \\nmake test\\n"}')).problems
    assert problem.hint == 'write `run: {name: "make all", command: …}`'
