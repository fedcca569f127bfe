"""Work distributed over processes: the largest items start first, and the results keep the order of the items."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from runstream.errors import InternalError
from runstream.projections.rebuild_processes import OnDone, run_in_processes


class Written(msgspec.Struct, frozen=True):
    """A work that says in a file which process has begun it."""

    file: str
    name: str


class Length(msgspec.Struct, frozen=True):
    """What comes of it."""

    name: str
    length: int


async def write(work: Written, tell: OnDone) -> Length:
    await asyncio.to_thread(_add_line, Path(work.file), f"{os.getpid()} {work.name}\n")
    if work.name == "broken":
        raise InternalError("it is broken", code="broken", hint="mend it")
    tell(len(work.name))
    return Length(work.name, len(work.name))


def _add_line(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line)


def silent(_done: int) -> None:
    return


async def test_no_process_begins_with_the_smallest_and_answers_are_in_order(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    works = [Written(str(begun), name) for name in ("a", "much", "more")]
    told: list[int] = []
    answers = await run_in_processes(write, works, [1, 4, 5], 2, told.append)
    assert answers == [Length("a", 1), Length("much", 4), Length("more", 4)]
    by_process: dict[str, list[str]] = {}
    for process, name in (line.split() for line in begun.read_text().splitlines()):
        by_process.setdefault(process, []).append(name)
    assert [names.index("a") for names in by_process.values() if "a" in names] == [1]
    assert sum(told) == 9


async def test_an_error_in_a_worker_process_keeps_its_type(tmp_path: Path) -> None:
    works = [Written(str(tmp_path / "begun"), name) for name in ("good", "broken")]
    with pytest.raises(InternalError, match="it is broken") as caught:
        await run_in_processes(write, works, [1, 1], 2, silent)
    assert (caught.value.code, caught.value.hint) == ("broken", "mend it")


async def test_one_process_is_this_one(tmp_path: Path) -> None:
    works = [Written(str(tmp_path / "begun"), name) for name in ("a", "bb")]
    assert await run_in_processes(write, works, [1, 2], 1, silent) == [Length("a", 1), Length("bb", 2)]
