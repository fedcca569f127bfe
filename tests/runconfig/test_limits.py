"""When a task is tried again (`retry`), and how long steps, runs and silence may last."""

from __future__ import annotations

import pytest

from runstream.events.run_config import Retry, RunConfig
from runstream.runconfig.parse import parse_config
from runstream.runconfig.problems import ConfigError
from runstream.runconfig.refs import RefContext
from runstream.runconfig.resolve import run_configs
from runstream.runconfig.tasks import REASONS

CONTEXT = RefContext(ref_type="branch", branch="main")
SECOND = 1_000_000_000
FILE = """
{top}
runs:
  - name: r
    {run}
    tasks:
      - name: t
        runtime: {{type: host}}
        {task}
        steps:
          - {step}
          - clone: {{{clone}}}
"""


def file(*, top: str = "", run: str = "", task: str = "", step: str = "run: make", clone: str = "") -> str:
    return FILE.format(top=top, run=run, task=task, step=step, clone=clone)


def config(text: str) -> RunConfig:
    return run_configs(parse_config(text), CONTEXT, {})[0].config


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", None),
        ("retry:", None),
        ("retry: 0", None),
        ("retry: {max: 0, backoff: 1h}", None),
        ("retry: 2", Retry(2, 0, REASONS)),
        ("retry: 2.0", Retry(2, 0, REASONS)),
        ("retry: {max: 10}", Retry(10, 0, REASONS)),
        ("Retry: {Max: 1, Backoff: 24h, On: failure}", Retry(1, 24 * 3600 * SECOND, ("failure",))),
        ("retry: {max: 1, backoff: 5000, on: [timeout, lost, timeout]}", Retry(1, 5000, ("lost", "timeout"))),
    ],
)
def test_a_number_of_further_attempts_or_more_about_them(written: str, meant: Retry | None) -> None:
    assert config(file(task=written)).tasks["t"].retry == meant


def test_the_nearest_value_counts() -> None:
    assert config(file(top="retry: 1", run="retry: 2", task="retry: 3")).tasks["t"].retry == Retry(3, 0, REASONS)
    assert config(file(top="retry: 1", run="retry: {max: 2, on: [lost]}")).tasks["t"].retry == Retry(2, 0, ("lost",))
    assert config(file(top="retry: 1")).tasks["t"].retry == Retry(1, 0, REASONS)
    assert config(file(top="retry: 1", task="retry: 0")).tasks["t"].retry is None
    assert config(file(top="run_timeout_interval: 1s")).run_timeout_interval == SECOND
    for written, seconds in (("2s", 2), ("0", 0)):
        both = file(top="run_timeout_interval: 1s", run=f"run_timeout_interval: {written}")
        assert config(both).run_timeout_interval == seconds * SECOND
    assert config(file()).run_timeout_interval == 0


@pytest.mark.parametrize(
    ("places", "seconds"),
    [
        ({}, 0),
        ({"top": "no_output_timeout: 1s"}, 1),
        ({"top": "no_output_timeout: 1s", "run": "no_output_timeout: 2s"}, 2),
        ({"run": "no_output_timeout: 2s", "task": "no_output_timeout: 3s"}, 3),
        ({"task": "no_output_timeout: 3s", "step": "run: {command: make, no_output_timeout: 4s}"}, 4),
        ({"task": "no_output_timeout: 3s", "step": "{type: run, command: make, no_output_timeout: 0}"}, 0),
    ],
)
def test_silence_is_limited_for_run_steps(places: dict[str, str], seconds: int) -> None:
    make, clone = config(file(**places)).tasks["t"].steps
    assert make.no_output_timeout == seconds * SECOND
    assert clone.no_output_timeout == 0


def test_every_step_may_have_a_limit() -> None:
    make, clone = (
        config(file(step="run: {command: make, step_timeout_interval: 1m30s}", clone="step_timeout_interval: 5s"))
        .tasks["t"]
        .steps
    )
    assert (make.step_timeout_interval, clone.step_timeout_interval) == (90 * SECOND, 5 * SECOND)


WRONG: list[tuple[dict[str, str], str]] = [
    ({"task": "retry: 11"}, "line 9, runs[0].tasks[0].retry: 11 is not between 0 and 10"),
    ({"task": "retry: -1"}, "runs[0].tasks[0].retry: -1 is not between 0 and 10"),
    ({"task": "retry: 1.5"}, "runs[0].tasks[0].retry: expected a whole number"),
    ({"task": "retry: yes"}, "runs[0].tasks[0].retry: expected a number or a map"),
    ({"task": "retry: [1]"}, "such as 2, or {max: 2, backoff: 10s, on: [failure, lost, timeout]}"),
    ({"run": "retry: {}"}, "runs[0].retry: retry needs max: how often the task is tried again"),
    ({"top": "retry: {max: 1, backof: 1s}"}, "retry.backof: unknown field \"backof\" (did you mean 'backoff'?)"),
    ({"task": "retry: {max: 1, when: always}"}, 'retry.when: unknown field "when"'),
    ({"task": "retry: {max: 1, backoff: soon}"}, "retry.backoff: 'soon' is not a duration"),
    ({"task": "retry: {max: 1, backoff: -1s}"}, "retry.backoff: the duration is negative"),
    ({"task": "retry: {max: 1, backoff: 25h}"}, "retry.backoff: the backoff is longer than 24h0m0s"),
    ({"task": "retry: {max: 1, on: []}"}, "retry.on: no reason is named (known: failure, lost, timeout)"),
    ({"task": "retry: {max: 1, on: [fail]}"}, "retry.on[0]: unknown reason \"fail\" (did you mean 'failure'?)"),
    ({"task": "retry: {max: 1, on: always}"}, 'on: unknown reason "always" (known: failure, lost, timeout)'),
    ({"task": "retry: {max: 1, on: 3}"}, "retry.on: expected a text"),
    ({"task": "retry: {max: 1, on: {a: b}}"}, "retry.on: expected a list"),
    ({"run": "run_timeout_interval: -1s"}, "runs[0].run_timeout_interval: the duration is negative"),
    ({"task": "no_output_timeout: [1s]"}, "runs[0].tasks[0].no_output_timeout: expected a duration"),
    ({"step": "run: {command: a, step_timeout_interval: x}"}, "steps[0].run.step_timeout_interval: 'x' is not"),
    ({"step": "run: {command: a, no_output_timout: 1s}"}, "(did you mean 'no_output_timeout'?)"),
]


@pytest.mark.parametrize(("places", "said"), WRONG)
def test_problems_have_their_place(places: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(file(**places))
    assert said in refused.value.message
