"""What would run, for people: each run with its tasks by level, what each waits for, and its environment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runstream.events.run_config import Depend, Retry, RunConfig, RunConfigTask, shown_text
from runstream.runconfig import Problem, RefContext, ResolvedRun, format_duration


def checked_lines(
    file: str, context: RefContext, runs: list[ResolvedRun], unknown: list[str], warnings: Iterable[Problem]
) -> Iterator[str]:
    """The lines that are printed of a file that was checked."""
    yield f"{file} is valid; {_for(context)} it would run:"
    for run in runs:
        if run.matches:
            yield f"run {run.name}{_manners(run.config)}"
            for task in sorted(run.config.tasks.values(), key=lambda task: task.level):
                yield from _task(task)
        else:
            yield f"run {run.name}: not, its `when` does not match"
    if unknown:
        yield f"variables that were not given: {', '.join(unknown)}"
    for warning in warnings:
        yield f"warning: {warning}"


def _for(context: RefContext) -> str:
    if context.branch or context.tag:
        return f"for {context.ref_type} {context.branch or context.tag}"
    return f"for {context.ref}" if context.ref else "for no branch or tag"


def _manners(config: RunConfig) -> str:
    """How it gets along with other runs, and how long it may take, where that is not as usual."""
    policy, bound = config.concurrency.policy, config.concurrency.max_waiting
    facts = [
        f"concurrency {policy}" if policy != "queue" else "",
        f"at most {bound} waiting" if bound else "",
        f"priority {config.priority}" if config.priority else "",
        "fail_fast" if config.fail_fast else "",
        f"at most {format_duration(config.run_timeout_interval)}" if config.run_timeout_interval else "",
    ]
    told = "; ".join(filter(None, facts))
    return f" ({told})" if told else ""


def _task(task: RunConfigTask) -> Iterator[str]:
    labels = (f"{name}={_one_line(value)}" for name, value in task.runtime.labels.items())
    facts = [f"level {task.level}", " ".join(filter(None, (task.runtime.type, task.runtime.arch, *labels)))]
    if task.depends:
        facts.append("after " + ", ".join(map(_edge, task.depends)))
    if task.skip:
        facts.append("skipped: its `when` does not match")
    if task.needs_approval:
        facts.append("waits for approval")
    if task.task_timeout_interval:
        facts.append(f"at most {format_duration(task.task_timeout_interval)}")
    if task.retry is not None:
        facts.append(_retry(task.retry))
    yield f"  {task.name}: {'; '.join(facts)}"
    if task.environment:
        yield "    " + ", ".join(f"{name}={_one_line(shown_text(value))}" for name, value in task.environment.items())


def _retry(retry: Retry) -> str:
    wait = f", the first after {format_duration(retry.backoff)}" if retry.backoff else ""
    often = "once more" if retry.max == 1 else f"up to {retry.max} times more"
    return f"tried {often} after {' or '.join(retry.on)}{wait}"


def _edge(depend: Depend) -> str:
    return depend.task if depend.conditions == ("on_success",) else f"{depend.task} ({' or '.join(depend.conditions)})"


def _one_line(value: str) -> str:
    shown = value if value.isprintable() else repr(value)[1:-1]
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
