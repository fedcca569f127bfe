"""How a run gets along with the others of its group (`concurrency`), and how urgent it is (`priority`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from runstream.events.run_config import Concurrency, GroupPolicy
from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.fields import CONCURRENCY
from runstream.runconfig.foreign import FOREIGN_CONCURRENCY
from runstream.runconfig.nodes import Mapping, Scalar, describe
from runstream.runconfig.problems import nearest, shown

POLICIES: tuple[GroupPolicy, ...] = get_args(GroupPolicy)
MAX_WAITING = 1_000
"""The largest bound that can be asked for."""
MAX_PRIORITY = 100
"""Priorities are from minus this to this."""
QUEUE = Concurrency("queue", 0)


def decode_concurrency(run: Fields) -> Concurrency:
    """The field `concurrency`: a policy, or a map of `policy` and `max_waiting`; without it the run queues."""
    place = run.get("concurrency")
    if place is None:
        return QUEUE
    if isinstance(place.node, Scalar) and place.node.kind == "str":
        return Concurrency(_policy(place), 0)
    if not isinstance(place.node, Mapping):
        place.wrong(f"expected a policy or a map, found {describe(place.node)}", f"a policy is {_or(POLICIES)}")
        return QUEUE
    fields = place.fields(CONCURRENCY, strict=True, foreign=FOREIGN_CONCURRENCY)
    return Concurrency(_policy(fields.get("policy")), _max_waiting(fields.get("max_waiting")))


def decode_priority(run: Fields) -> int:
    """The field `priority`; 0 without it."""
    place = run.get("priority")
    if place is None:
        return 0
    priority = place.whole_number()
    if abs(priority) > MAX_PRIORITY:
        place.wrong(f"the priority {priority} is not between -{MAX_PRIORITY} and {MAX_PRIORITY}")
        return 0
    return priority


def _policy(place: Cursor | None) -> GroupPolicy:
    text = "queue" if place is None else place.strict_text()
    for policy in POLICIES:
        if policy == text:
            return policy
    if place is not None and text is not None:
        place.wrong(f"unknown policy {shown(text)}", nearest(text, POLICIES))
    return "queue"


def _or(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}"


def _max_waiting(place: Cursor | None) -> int:
    if place is None:
        return 0
    bound = place.whole_number()
    if not 1 <= bound <= MAX_WAITING:
        place.wrong(
            f"the bound {bound} is not between 1 and {MAX_WAITING}",
            "leave it out for no bound; with the policy skip no run waits",
        )
        return 0
    return bound
