"""How runs get along with others (`concurrency`, `priority`), and which executors they want (`runtime.labels`)."""

from __future__ import annotations

import pytest

from runstream.events.run_config import Concurrency
from runstream.runconfig.parse import ParsedConfig, parse_config
from runstream.runconfig.problems import ConfigError
from runstream.runconfig.refs import RefContext
from runstream.runconfig.resolve import run_configs

CONTEXT = RefContext(ref_type="branch", branch="main")


def parsed(fields: str) -> ParsedConfig:
    return parse_config(f"runs:\n  - name: r\n{fields}")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", Concurrency("queue", 0)),
        ("    concurrency:\n", Concurrency("queue", 0)),
        ("    concurrency: cancel_running\n", Concurrency("cancel_running", 0)),
        ("    concurrency: {}\n", Concurrency("queue", 0)),
        ("    concurrency: {policy: skip}\n", Concurrency("skip", 0)),
        ("    concurrency: {max_waiting: 3}\n", Concurrency("queue", 3)),
        ("    Concurrency: {Policy: queue, Max_Waiting: 1000}\n", Concurrency("queue", 1000)),
    ],
)
def test_a_policy_alone_or_with_a_bound(written: str, meant: Concurrency) -> None:
    (run,) = run_configs(parsed(written), CONTEXT, {})
    assert run.config.concurrency == meant


@pytest.mark.parametrize(("written", "meant"), [("", 0), ("    priority: -100\n", -100), ("    priority: 100\n", 100)])
def test_a_priority_that_the_creator_of_the_run_may_replace(written: str, meant: int) -> None:
    (run,) = run_configs(parsed(written), CONTEXT, {})
    assert run.config.priority == meant
    (run,) = run_configs(parsed(written), CONTEXT, {}, priority=7)
    assert run.config.priority == 7


def test_labels_are_texts() -> None:
    (run,) = run_configs(
        parsed("    tasks: [{name: t, runtime: {type: host, labels: {gpu: yes, rack: 7}}}]\n"), CONTEXT, {}
    )
    assert run.config.tasks["t"].runtime.labels == {"gpu": "yes", "rack": "7"}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "concurrency: cancel_runing",
            "runs[0].concurrency: unknown policy \"cancel_runing\" (did you mean 'cancel_running'?)",
        ),
        (
            "concurrency: [skip]",
            "runs[0].concurrency: expected a policy or a map, found a list "
            "(a policy is queue, cancel_running, cancel_waiting or skip)",
        ),
        ("concurrency: {polcy: skip}", "runs[0].concurrency.polcy: unknown field \"polcy\" (did you mean 'policy'?)"),
        (
            "concurrency: {policy: 1}",
            "runs[0].concurrency.policy: expected a text, found the number 1 (put it in quotes)",
        ),
        (
            "concurrency: {max_waiting: 0}",
            "runs[0].concurrency.max_waiting: the bound 0 is not between 1 and 1000 "
            "(leave it out for no bound; with the policy skip no run waits)",
        ),
        ("concurrency: {max_waiting: many}", "runs[0].concurrency.max_waiting: expected a whole number, found "),
        ("priority: 101", "runs[0].priority: the priority 101 is not between -100 and 100"),
        ("priority: high", "runs[0].priority: expected a whole number, found "),
        ("tasks: [{name: t, runtime: {type: host, labels: gpu}}]", "runtime.labels: expected a map, found "),
        ("tasks: [{name: t, runtime: {type: host, labels: {gpu: [1]}}}]", "labels.gpu: expected a text, found a list"),
        ("tasks: [{name: t, runtime: {type: host, labels: {'': x}}}]", "the label has no name"),
    ],
)
def test_problems_have_their_place(written: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parsed(f"    {written}\n")
    assert "line 3" in str(refused.value)
    assert said in str(refused.value)
