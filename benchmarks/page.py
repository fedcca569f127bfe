"""The page in a browser: a log of 1,000,000 lines, one that grows, a run of 2,000 tasks, eight tabs.

`python -m benchmarks.page` starts a service and Chromium, and prints each figure with its aim. `--scale 0.1` measures a
tenth of the sizes; `--profile FILE` writes what the browser did while it showed the table, for its developer tools.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks import report
from benchmarks.figures import Figures
from benchmarks.machine import facts, load
from benchmarks.projects import config_log
from benchmarks.standing import Deployment, servers
from runstream.client import Client, NewRun, Run

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

LINES, TASKS, RATE, TABS = 1_000_000, 2000, 5000, 8
FOLLOWED_SECONDS = 12
PARTS = ("tasks", "log", "following", "tabs")
MAX_NODES = 25_000
PART = "m"
_WIDTH = 100
"""Tasks of a level."""
_PARENTS = 2
_WAIT_MS = 120_000.0
_COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "gateway": (),
    "scheduler": (),
    "configstore": (),
    "executor": ("--driver", "process", "--sandbox", "off", "--active-tasks-limit", "8"),
}
OBSERVE = """
window.longTasks = [];
new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask", buffered: true });
Object.defineProperty(Document.prototype, "hidden", { get: () => window.hiddenNow ?? false, configurable: true });
window.hide = (hidden) => { window.hiddenNow = hidden; document.dispatchEvent(new Event("visibilitychange")); };
"""
"""Notes long tasks; a test tells a tab that another one is in front of it."""
NODES = """() => {
  const nodes = document.createNodeIterator(document, NodeFilter.SHOW_ALL);
  let count = 0;
  while (nodes.nextNode()) count += 1;
  return count;
}"""
"""Elements, texts and comments of the document."""


_LINE = "line %09.0f of the log: compiling src/module/file.c into a line that is a hundred bytes long ..."


def printing(lines: int) -> str:
    """Return a command that prints so many numbered lines, 100 bytes each."""
    return f"seq -f '{_LINE}' {lines}"


def printing_slowly(lines: int, rate: int) -> str:
    """Return a command that prints numbered lines, so many a second."""
    part = rate // 10
    block = f"seq -f '{_LINE}' $i $((i + {part} - 1))"
    return f"i=1; while [ $i -le {lines} ]; do {block}; i=$((i + {part})); sleep 0.1; done"


def one_task(command: str) -> Mapping[str, Mapping[str, object]]:
    """Return the tasks of a run that runs one command."""
    step = {"type": "run", "name": "print", "command": command, "tty": False}
    return {"t": {"id": "t", "name": "print", "runtime": {"type": "host"}, "steps": [step]}}


def many_tasks(count: int) -> Mapping[str, Mapping[str, object]]:
    """Return tasks in levels, each of which depends on two of the level before."""
    step = {"type": "run", "name": "true", "command": "true", "tty": False}
    return {
        f"t{number}": {
            "id": f"t{number}",
            "name": f"level {number // _WIDTH} task {number % _WIDTH}",
            "runtime": {"type": "host"},
            "steps": [step],
            "depends": {f"t{parent}": {"task_id": f"t{parent}"} for parent in _parents(number)},
        }
        for number in range(count)
    }


def _parents(number: int) -> Sequence[int]:
    level, place = divmod(number, _WIDTH)
    return [(level - 1) * _WIDTH + (place + k) % _WIDTH for k in range(_PARENTS)] if level else ()


@dataclass(frozen=True, slots=True)
class Bench:
    """A service with runs, and a browser that is logged in."""

    client: Client
    context: BrowserContext
    figures: Figures
    repetitions: int
    scale: float

    async def create(self, name: str, tasks: Mapping[str, Mapping[str, object]]) -> Run:
        """Create a run in a group of its own."""
        return await self.client.runs.create(NewRun(f"/project/page/branch/{name}", name, tasks))

    async def ended(self, run: Run) -> None:
        """Wait for the end of a run."""
        async with self.client.events.tail(run=run.id) as tail:
            async for commit in tail:
                if any(event.type == "RunArchived" for event in commit.events):
                    return

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Page]:
        """A tab."""
        tab = await self.context.new_page()
        tab.set_default_timeout(_WAIT_MS)
        try:
            yield tab
        finally:
            await tab.close()

    def add(self, name: str, unit: str, values: Sequence[float], aim: float | None, note: str = "") -> None:
        """Record a figure."""
        self.figures.add(PART, name, unit, values, aim=aim, better="less", note=note)


async def _longest(tab: Page) -> float:
    """Return the longest task of the browser's main thread so far, in milliseconds; 0 if none was longer than 50."""
    return float(await tab.evaluate("Math.max(0, ...window.longTasks)"))


async def measure_log(bench: Bench) -> None:
    """Open a long log at its end, and jump to its middle."""
    lines = int(LINES * bench.scale)
    run = await bench.create("log", one_task(printing(lines)))
    await bench.ended(run)
    opened, jumped, nodes = [], [], []
    for _ in range(bench.repetitions):
        async with bench.tab() as tab:
            begun = time.perf_counter()
            await tab.goto(f"/ui/runs/{run.id}/log/print/0", wait_until="commit")
            await tab.locator(f"#L{lines}").wait_for()
            opened.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            await tab.evaluate(f"location.hash = 'L{lines // 2}'")
            await tab.locator(f"#L{lines // 2}.chosen").wait_for()
            jumped.append(time.perf_counter() - begun)
            for _ in range(10):
                await tab.evaluate("document.querySelector('.log-view').scrollBy(0, 20000)")
                await tab.wait_for_timeout(100)
            nodes.append(float(await tab.evaluate(NODES)))
    bench.add(f"log of {lines:,} lines: open at the end", "s", opened, 1.5)
    bench.add(f"log of {lines:,} lines: jump to the middle", "s", jumped, 1.0)
    bench.add(f"log of {lines:,} lines: nodes of the document", "", nodes, MAX_NODES)


async def measure_following(bench: Bench) -> None:
    """Follow a log that grows by thousands of lines a second, until it has ended."""
    lines = int(RATE * FOLLOWED_SECONDS * max(bench.scale, 0.5))
    longest, behind, nodes = [], [], []
    for number in range(bench.repetitions):
        run = await bench.create(f"grows{number}", one_task(printing_slowly(lines, RATE)))
        async with bench.tab() as tab:
            await tab.goto(f"/ui/runs/{run.id}/log/print/0")
            await tab.locator(".log-foot").get_by_text("Live").wait_for()
            await bench.ended(run)
            begun = time.perf_counter()
            await tab.locator(f"#L{lines}").wait_for()
            behind.append(time.perf_counter() - begun)
            longest.append(await _longest(tab))
            nodes.append(float(await tab.evaluate(NODES)))
    bench.add(f"following {RATE:,} lines a second: longest task of the page", "ms", longest, 200.0)
    bench.add(f"following {RATE:,} lines a second: last line after the end of the run", "s", behind, None)
    bench.add(f"following {RATE:,} lines a second: nodes of the document", "", nodes, MAX_NODES)


ROWS = {"table": ".task-table tbody tr[data-row]", "timeline": ".timeline-row", "graph": ".graph .node"}
VIEWS = {"table": ".task-table", "timeline": ".timeline-scroll"}
"""What scrolls."""


async def measure_tasks(bench: Bench, profile: Path | None) -> None:
    """Show a run of many tasks in each view, its last row after a jump to the end, and the list that has it."""
    count = int(TASKS * bench.scale)
    tasks = many_tasks(count)
    last = str(tasks[f"t{count - 1}"]["name"])
    run = await bench.create("many", tasks)
    await bench.ended(run)
    for view, rows in ROWS.items():
        first, whole = [], []
        for repetition in range(bench.repetitions):
            async with bench.tab() as tab:
                traced = await bench.context.new_cdp_session(tab) if profile and repetition == 0 else None
                if traced:
                    await traced.send("Profiler.enable")
                    await traced.send("Profiler.start")
                begun = time.perf_counter()
                await tab.goto(f"/ui/runs/{run.id}?view={view}", wait_until="commit")
                if view == "graph":
                    await tab.get_by_role("button", name="Draw it anyway").or_(tab.locator(rows).first).wait_for()
                else:
                    await tab.locator(rows).first.wait_for()
                first.append(time.perf_counter() - begun)
                begun = time.perf_counter()
                if view == "graph":
                    if await tab.locator(rows).count() == 0:
                        await tab.get_by_role("button", name="Draw it anyway").click()
                    await tab.wait_for_function(
                        "([rows, count]) => document.querySelectorAll(rows).length === count", arg=[rows, count]
                    )
                else:
                    await tab.locator(VIEWS[view]).evaluate("view => { view.scrollTop = view.scrollHeight }")
                    await tab.locator(rows).filter(has_text=last).wait_for()
                whole.append(time.perf_counter() - begun)
                if traced and profile:
                    stopped: dict[str, Any] = await traced.send("Profiler.stop")
                    await asyncio.to_thread(
                        profile.with_name(f"{profile.name}-{view}.cpuprofile").write_text,
                        json.dumps(stopped["profile"]),
                    )
                # The service reads the history on for a tab that is gone: the next one would wait for it.
                await tab.wait_for_load_state("networkidle")
        bench.add(
            f"run of {count:,} tasks, {view}: first rows"
            if view != "graph"
            else f"run of {count:,} tasks, graph: question",
            "s",
            first,
            1.0,
        )
        bench.add(
            f"run of {count:,} tasks, {view}: last row after a jump to the end"
            if view != "graph"
            else f"run of {count:,} tasks, graph: drawn",
            "s",
            whole,
            1.0,
        )
    listed = []
    for _ in range(bench.repetitions):
        async with bench.tab() as tab:
            begun = time.perf_counter()
            await tab.goto("/ui/", wait_until="commit")
            await tab.locator(f'a[href="/ui/runs/{run.id}"]').wait_for()
            listed.append(time.perf_counter() - begun)
    bench.add(f"list with a run of {count:,} tasks", "s", listed, 1.0)


async def measure_tabs(bench: Bench) -> None:
    """Open tabs of one list; each shows a new run when it comes to the front."""
    tabs = [await bench.context.new_page() for _ in range(TABS)]
    for tab in tabs:
        await tab.goto("/ui/?group=/project/page")
        await tab.get_by_role("heading", name="Runs").wait_for()
        await tab.evaluate("hide(true)")
    run = await bench.create("tabs", one_task("true"))
    await bench.ended(run)
    shown = []
    for tab in tabs:
        begun = time.perf_counter()
        await tab.evaluate("hide(false)")
        await tab.locator(f'a[href="/ui/runs/{run.id}"]').wait_for()
        shown.append(time.perf_counter() - begun)
        await tab.evaluate("hide(true)")
    for tab in tabs:
        await tab.close()
    bench.add(f"{TABS} tabs: a new run is shown in the slowest", "s", [max(shown)], 1.0)


async def _measure(options: argparse.Namespace, figures: Figures, machine: dict[str, object]) -> None:
    from playwright.async_api import async_playwright

    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("there is no chromium: apt-get install chromium")
    async with servers(options.folder) as standing, async_playwright() as playwright:
        machine.update(facts(standing.folder))
        deployment = Deployment(standing, "page")
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        async with (
            standing.log("page"),
            config_log(standing, "page"),
            deployment.running(**_COMPONENTS),
            Client(deployment.url, token=deployment.token) as client,
        ):
            context = await browser.new_context(base_url=deployment.url, viewport={"width": 1440, "height": 900})
            await context.add_init_script(OBSERVE)
            context.set_default_timeout(_WAIT_MS)
            login = await context.new_page()
            await login.goto(f"/ui/login#{deployment.token}")
            await login.wait_for_url(f"{deployment.url}/ui/")
            await login.close()
            bench = Bench(client, context, figures, options.repetitions, options.scale)
            only = set(options.only or PARTS)
            if "tasks" in only:
                await measure_tasks(bench, options.profile)
            if "log" in only:
                await measure_log(bench)
            if "following" in only:
                await measure_following(bench)
            if "tabs" in only:
                await measure_tabs(bench)
            await context.close()
        await browser.close()


def main() -> int:
    """The command; its exit code is 1 when an aim was missed and `--strict` is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes; 1 for a million lines, 2,000 tasks")
    parser.add_argument("--repetitions", type=int, default=3, help="a figure is their median")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="measure these alone")
    parser.add_argument("--profile", type=Path, help="write CPU profiles of the views to FILE-VIEW.cpuprofile")
    parser.add_argument("--folder", type=Path, help="where the servers keep their data meanwhile; default: TMPDIR")
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    parser.add_argument("--strict", action="store_true", help="exit with 1 when an aim is missed")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    figures = Figures(lambda figure: console.print("  ", *report.cells(figure)[:3]))
    machine: dict[str, object] = {"load_before": load()}
    asyncio.run(_measure(options, figures, machine))
    report.show(figures, console)
    file = report.write(figures, {**machine, "load_after": load()}, options.results)
    console.print(f"load {machine['load_before']} before, {load()} after; written to {file}")
    return int(options.strict and any(figure.reached is False for figure in figures.all))


if __name__ == "__main__":
    sys.exit(main())
