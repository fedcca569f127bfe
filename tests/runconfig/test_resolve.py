"""From a configuration to the run config of one ref (rules config-8, config-15, step-9, group-9)."""

from __future__ import annotations

import pytest

from runstream.errors import BadRequestError
from runstream.events.run_config import Depend, RunConfig, Step
from runstream.runconfig.parse import parse_config
from runstream.runconfig.refs import RefContext, counter_environment, git_host_and_port, run_group, static_environment
from runstream.runconfig.resolve import canonical, config_hash, run_configs

MAIN = RefContext(
    ref_type="branch",
    ref="refs/heads/main",
    branch="main",
    commit_sha="c0ffee",
    repository_url="git@example.com:a/b.git",
)
TEXT = """
task_timeout_interval: 30s
docker_registries_auth: {a: {username: top}, b: {username: top}, c: {username: top}}
runs:
  - name: build
    task_timeout_interval: 20s
    docker_registries_auth: {b: {username: run}, c: {username: run}}
    tasks:
      - name: make
        runtime: {type: host}
        environment: {TOKEN: {from_variable: token}, GONE: {from_variable: nowhere}}
        steps:
          - clone: {depth: 2}
          - run: {command: make, environment: {X: {from_variable: token}}}
      - name: ship
        runtime: {type: host}
        shell: /bin/bash
        depends: [make]
        approval: true
        when: {tag: /.*/}
        task_timeout_interval: 10s
        docker_registries_auth: {c: {username: task}}
  - name: release
    when: {tag: /^v/}
    tasks: []
"""


def build(context: RefContext = MAIN) -> RunConfig:
    return run_configs(parse_config(TEXT), context, {"token": "t0k"}, cache_group="g")[0].config


def test_tasks_are_resolved() -> None:
    config = build()
    make, ship = config.tasks["make"], config.tasks["ship"]
    assert (config.name, config.cache_group, config.environment) == ("build", "g", {})
    assert make.environment == {"TOKEN": "t0k", "GONE": ""}
    assert (make.level, ship.level) == (0, 1)
    assert ship.depends == (Depend("make", ("on_success",)),)
    assert (make.shell, ship.shell) == ("/bin/sh -e", "/bin/bash")
    assert (make.skip, ship.skip, ship.needs_approval) == (False, True, True)
    assert (make.task_timeout_interval, ship.task_timeout_interval) == (20_000_000_000, 10_000_000_000)
    assert {name: auth.username for name, auth in ship.docker_registries_auth.items()} == {
        "a": "top", "b": "run", "c": "task",
    }  # fmt: skip
    assert make.steps == (
        Step(type="clone", name="Clone repository and checkout code", depth=2),
        Step(type="run", name="make", command="make", environment={"X": "t0k"}),
    )


def test_a_run_for_another_ref_does_not_match() -> None:
    found = run_configs(parse_config(TEXT), MAIN, {})
    assert [(run.name, run.matches) for run in found] == [("build", True), ("release", False)]
    tagged = run_configs(parse_config(TEXT), RefContext(ref_type="tag", tag="v1", ref="refs/tags/v1"), {})
    assert [run.matches for run in tagged] == [True, True]
    assert not tagged[0].config.tasks["ship"].skip


def test_a_timeout_that_is_negative_or_zero_is_none() -> None:
    task = "{name: t, runtime: {type: host}, task_timeout_interval: %s}"
    text = f"runs: [{{name: r, task_timeout_interval: 5s, tasks: [{task}]}}]"
    for given in ("0s", "-5s"):
        config = run_configs(parse_config(text % given), MAIN, {})[0].config
        assert config.tasks["t"].task_timeout_interval == 0


def test_equal_content_has_an_equal_hash() -> None:
    assert config_hash(build()) == config_hash(build())
    other = RefContext(ref_type="branch", branch="x", ref="refs/heads/x", repository_url=MAIN.repository_url)
    assert config_hash(build(other)) != config_hash(build())
    assert len(config_hash(build())) == 64
    forward = RunConfig("r", {}, {"a": "1", "b": "2"}, {}, "")
    backward = RunConfig("r", {}, {"b": "2", "a": "1"}, {}, "")
    assert canonical(forward) == canonical(backward)


def test_the_static_environment_has_both_names_of_everything() -> None:
    found = static_environment(MAIN)
    assert found["CI"] == "true"
    expected = {
        "SSHPRIVKEY": "", "REPOSITORY_URL": "git@example.com:a/b.git", "GIT_HOST": "example.com", "GIT_PORT": "22",
        "GIT_BRANCH": "main", "GIT_TAG": "", "PULL_REQUEST_ID": "", "GIT_REF_TYPE": "branch",
        "GIT_REF": "refs/heads/main", "GIT_COMMITSHA": "c0ffee",
    }  # fmt: skip
    for prefix in ("AGOLA_", "RUNSTREAM_"):
        assert {name: found[prefix + name] for name in expected} == expected
    assert len(found) == 1 + 2 * len(expected)
    keys = static_environment(RefContext(ssh_host_key="k", skip_ssh_host_key_check=True))
    assert keys["AGOLA_SSHHOSTKEY"] == "k"
    assert keys["RUNSTREAM_SKIPSSHHOSTKEYCHECK"] == "1"
    assert counter_environment(7) == {"AGOLA_RUN_COUNTER": "7", "RUNSTREAM_RUN_COUNTER": "7"}


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("git@example.com:a/b.git", "example.com", "22"),
        ("example.com:a/b.git", "example.com", "22"),
        ("ssh://git@example.com:2222/a/b.git", "example.com", "2222"),
        ("https://example.com/a/b.git", "example.com", "22"),
        ("http://user:pw@example.com:8080/a", "example.com", "8080"),
        ("ssh://git@[::1]:2222/a", "::1", "2222"),
        ("/srv/a.git", "", "22"),
        ("file:///srv/a.git", "", "22"),
        ("", "", "22"),
    ],
)
def test_host_and_port_of_a_clone_url(url: str, host: str, port: str) -> None:
    assert git_host_and_port(url) == (host, port)


def test_an_invalid_clone_url_is_refused() -> None:
    with pytest.raises(BadRequestError, match="not valid"):
        git_host_and_port("ssh://host:port/a")


def test_groups_have_four_elements() -> None:
    assert run_group("/project/p", RefContext(branch="feature/a b")) == "/project/p/branch/feature%2Fa%20b"
    assert run_group("/user/u", RefContext(tag="v1+é:@")) == "/user/u/tag/v1+%C3%A9:@"
    assert run_group("/user/u", RefContext(pull_request_id="12")) == "/user/u/pr/12"
    with pytest.raises(BadRequestError, match="branch, a tag or a pull request"):
        run_group("/user/u", RefContext())
