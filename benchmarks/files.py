"""(i) Workspace archives of a gibibyte beside `tar | zstd`, lines of a log of a million lines, logs of running steps.

    python -m benchmarks.files pack FOLDER ARCHIVE
    python -m benchmarks.files unpack ARCHIVE FOLDER

are what the executor does for a task without a sandbox, each as a process of its own.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, cast

from benchmarks.children import Took, run_timed
from benchmarks.figures import Figures, percentile
from benchmarks.standing import Deployment
from benchmarks.workloads import Workload
from runstream.client import Client, NewRun, Run, Task
from runstream.events.run_config import SaveContent
from runstream.executor.steps.archives import Unpacking, compressed, pack, plain
from runstream.executor.task_root import TaskRoot
from runstream.log_lines import MAX_LINES
from runstream.log_search import compile_query
from runstream.objects import PosixObjects, paths
from runstream.steplogs.log_index import LogIndexer, encode
from runstream.steplogs.reader import StepLogReader
from runstream.subjects import StepLogKey

MEBIBYTES = 1024
RATE_AIM, MEMORY_AIM, LINES_AIM = 150.0, 150.0, 50.0
LOG_LINES = 1_000_000
LOG_BYTES = 100_000_000
TIMED_LINES = 100
FOLLOWER_AIM, LOG_RATE_AIM = 50.0, 50.0
_SECONDS = 300.0
_PYTHON = (sys.executable, "-m", "benchmarks.files")


async def measure(folder: Path | None, figures: Figures, repetitions: int) -> None:
    """Pack and unpack files; read and search a log."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        work = Path(made)
        _make_files(work / "files")
        packs, unpacks, bare_packs, bare_unpacks = [], [], [], []
        for _ in range(repetitions):
            packs.append(await run_timed(*_PYTHON, "pack", work / "files", work / "ours", seconds=_SECONDS))
            unpacks.append(await run_timed(*_PYTHON, "unpack", work / "ours", work / "out", seconds=_SECONDS))
            shutil.rmtree(work / "out")
            bare = 'tar -C "$1" -c . | zstd -q -1 -T2 -f -o "$2"'
            bare_packs.append(await run_timed("sh", "-c", bare, "sh", work / "files", work / "bare", seconds=_SECONDS))
            (work / "out").mkdir()
            bare = 'zstd -q -d -c "$1" | tar -C "$2" -x'
            bare_unpacks.append(await run_timed("sh", "-c", bare, "sh", work / "bare", work / "out", seconds=_SECONDS))
            shutil.rmtree(work / "out")
        for name, ours, theirs in (("save", packs, bare_packs), ("restore", unpacks, bare_unpacks)):
            figures.add("i", f"tar and zstd: {name} 1 GiB", "MiB/s", [_rate(each) for each in theirs], limit=True)
            figures.add("i", f"{name} 1 GiB of a workspace", "MiB/s", [_rate(each) for each in ours], aim=RATE_AIM)
            memory = [each.mebibytes for each in ours]
            figures.add("i", f"{name}: memory", "MiB", memory, aim=MEMORY_AIM, better="less")
        await _measure_log(work, figures, repetitions)


async def _measure_log(folder: Path, figures: Figures, repetitions: int) -> None:
    objects = PosixObjects(folder / "objects")
    key = StepLogKey(0, "run", "task", "task", "task", 0)
    indexer, log = LogIndexer(), bytearray()
    for number in range(LOG_LINES):
        line = b"%07d the line of a log, as long as lines are: compiling module/%d/file.c\n" % (number, number % 97)
        indexer.add(line, 1_764_412_000_000 + number)
        log += line
    await objects.write_all(
        {paths.step_log("task", 0): bytes(log), paths.log_index("task", 0): encode(indexer.index())}
    )
    reader = StepLogReader(cast("Any", None), "benchmark", cast("Any", None), objects)
    query = compile_query("line-that-is-not-there|0999999", regex=True, ignore_case=False)
    lines, searches = [], []
    for number in range(repetitions):
        begun = time.perf_counter()
        page = await reader.lines(key, LOG_LINES * (number + 1) // (repetitions + 1), 1000)
        lines.append((time.perf_counter() - begun) * 1000)
        assert len(page.lines) == min(1000, MAX_LINES)
        begun, first = time.perf_counter(), 0
        while (found := await reader.search(key, first, 10, query)).next is not None:
            first = found.next
        searches.append(len(log) / (1 << 20) / (time.perf_counter() - begun))
        assert [line.number for line in found.lines] == [LOG_LINES - 1]
    figures.add("i", "1,000 lines within a log of a million", "ms", lines, aim=LINES_AIM, better="less")
    figures.add("i", "search of that log", "MiB/s", searches)


async def measure_live(deployment: Deployment, figures: Figures, repetitions: int) -> None:
    """Follow a step that prints the time, and run one that prints 100 MB."""
    passed, rates = [], []
    async with Client(deployment.url, token=deployment.token) as client:
        with tempfile.TemporaryDirectory() as made:
            file = Path(made) / "log"
            await asyncio.to_thread(file.write_bytes, b"%080d\n" % 7 * (LOG_BYTES // 81))
            for _ in range(repetitions):
                passed.append(percentile(await latencies(client), 50))
                rates.append(await _log_rate(client, file))
    figures.add("i", "from a line written to a follower: p50", "ms", passed, aim=FOLLOWER_AIM, better="less")
    figures.add("i", "100 MB of log of one step", "MB/s", rates, aim=LOG_RATE_AIM)


async def latencies(client: Client, image: str = "") -> list[float]:
    """Milliseconds from when a step writes a line, which is the time, until a follower has it."""
    # By its path: the shell of busybox has a date of its own, without nanoseconds.
    command = f"i=0; while [ $i -lt {TIMED_LINES} ]; do /bin/date +%s%N; sleep 0.03; i=$((i+1)); done"
    run, task = await _started(client, command, image)
    passed: list[float] = []
    text = b""
    async for chunk in client.logs.follow(run.id, task.id, 0):
        now = time.time_ns()
        *lines, text = (text + chunk).split(b"\n")
        passed += [(now - int(line)) / 1e6 for line in lines]
    assert len(passed) == TIMED_LINES
    return passed


async def _log_rate(client: Client, file: Path) -> float:
    run, task = await _started(client, f"cat {file}")
    followed = 0
    async for chunk in client.logs.follow(run.id, task.id, 0):
        followed += len(chunk)
    while run.phase != "finished":
        run = await client.runs.get(run.id)
    step = run.tasks[task.id].steps[0]
    assert step.phase == "success"
    assert step.start_time is not None
    assert step.end_time is not None
    assert followed >= LOG_BYTES - 81
    return LOG_BYTES / 1e6 / (step.end_time - step.start_time).total_seconds()


async def _started(client: Client, command: str, image: str = "") -> tuple[Run, Task]:
    workload = Workload("log", ((command,),), image)
    run = await client.runs.create(NewRun(workload.group(0), workload.name, workload.tasks()))
    return run, next(iter(run.tasks.values()))


def _make_files(folder: Path) -> None:
    """Make 1,024 files of a mebibyte in 32 folders: half of them random, half of them words."""
    numbers = random.Random(1)  # noqa: S311  the same each time
    words = [bytes(numbers.choices(b"abcdefghijklmnop", k=numbers.randrange(3, 10))) for _ in range(2000)]
    for number in range(MEBIBYTES):
        path = folder / f"folder{number % 32}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = b" ".join(numbers.choices(words, k=170_000)) if number % 2 else numbers.randbytes(1 << 20)
        path.write_bytes(text[: 1 << 20])


def _rate(took: Took) -> float:
    return MEBIBYTES / took.seconds


def main() -> None:
    """Do what the arguments say, as the executor does."""
    action, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    stopped = threading.Event()
    if action == "pack":
        root = TaskRoot.of_folders(source)
        with target.open("wb") as file, compressed(file) as archive:
            pack(archive, [SaveContent("", "", ("**",))], root, str(source), stopped)
    else:
        target.mkdir()
        with source.open("rb") as stored:
            Unpacking(TaskRoot.of_folders(target), str(target), stopped).unpack(plain(stored), "task")


if __name__ == "__main__":
    main()
