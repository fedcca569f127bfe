"""Histories of played runs, with which the page's replay is tested: `python -m tests.page.histories` writes them.

Each has what `GET /runs/{id}/history` answers and, for each commit, a digest of the run as of it. Beside them are pairs
of random documents with the changes between them: keys vanish from these, which no played run does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from random import Random
from typing import Any
from unittest.mock import patch

import msgspec

from runstream.commits import Position
from runstream.gateway.responses import run_answer
from runstream.gateway.runs.history import MAX_COMMITS, history_answer
from runstream.json_changes import differences
from runstream.projections.as_of import RunsAsOf
from tests.page.api_types import WEB
from tests.projections.playing import played
from tests.projections.test_fsck import logged

HISTORIES = WEB / "tests" / "histories.json"
SEEDS, MOVES, RUNS = range(5), 150, 2
"""Of the worlds; moves in each; runs of each, those with the most commits."""
DOCUMENTS = 60
_SENT = ("number", "position", "time", "changes", "removals")
"""What the replay reads of a commit."""


async def histories() -> str:
    """Return the histories as JSON."""
    with patch("runstream.log.runs.require_uuid", lambda text, _: text):
        found = [history for seed in SEEDS for history in await _of_world(seed)]
    documents = ",\n".join(map(_text, _documents()))
    return '{"histories":[\n' + ",\n".join(map(_text, found)) + f'\n],"documents":[\n{documents}\n]}}\n'


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _documents() -> Iterator[Any]:
    random = Random(1)  # noqa: S311  # the same each time
    for _ in range(DOCUMENTS):
        before, after = (_object(random, 3) for _ in range(2))
        changes, removals = differences(before, after)
        yield {"before": before, "changes": changes, "removals": sorted(removals), "after": after}


def _object(random: Random, depth: int) -> dict[str, Any]:
    return {key: _value(random, depth - 1) for key in "abcd" if random.random() < 0.7}


def _value(random: Random, depth: int) -> Any:
    kind = random.randrange(4) if depth else 0
    if kind == 0:
        return random.choice(["", "x", 1, None, True])
    if kind == 1:
        return [_value(random, depth - 1) for _ in range(random.randrange(3))]
    return _object(random, depth)


async def _of_world(seed: int) -> list[Any]:
    world = played(seed, MOVES, settled=True)
    past = RunsAsOf(await logged(world))
    told = [_plain(await history_answer(await past.history(run), 1, MAX_COMMITS)) for run in sorted(world.truth.runs)]
    found = []
    for history in sorted(told, key=lambda one: -one["count"])[:RUNS]:
        run = history["answer"]["run"]["id"]
        commits = history["commits"]
        as_of = [await past.run(run, Position.parse(commit["position"])) for commit in commits]
        answers = [_plain(run_answer(one.record.run, one.config, one.record.executor_tasks)) for one in as_of]
        kept = [{name: commit[name] for name in _SENT} for commit in commits]
        found.append({"answer": history["answer"], "commits": kept, "digests": [*map(_digest, answers)]})
    return found


def _plain(answer: object) -> Any:
    return json.loads(msgspec.json.encode(answer))


def _digest(answer: Any) -> str:
    text = json.dumps(answer, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    """Write the histories."""
    HISTORIES.write_text(asyncio.run(histories()))


if __name__ == "__main__":
    main()
