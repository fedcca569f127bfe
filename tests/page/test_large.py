"""Large logs and runs, a tenth of those of `make bench-page`: what is there, in which order, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from benchmarks.page import MAX_NODES, NODES, ROWS, many_tasks, one_task, printing

from runstream.client import NewRun, Run
from tests.page.conftest import Site

if TYPE_CHECKING:
    from playwright.async_api import Page

LINES, TASKS = 100_000, 200
NUMBERS = "rows => rows.map(row => Number(row.id.slice(1)))"


async def ended(site: Site, name: str, tasks: Mapping[str, Mapping[str, object]]) -> Run:
    """Create a run and wait for its end."""
    run = await site.client.runs.create(NewRun(f"/project/large/branch/{name}", name, tasks))
    async with site.client.events.tail(run=run.id) as tail:
        async for commit in tail:
            if any(event.type == "RunFinished" for event in commit.events):
                break
    return run


async def test_a_long_log_opens_at_its_end_and_anywhere_with_few_nodes(tab: Page, site: Site) -> None:
    run = await ended(site, "log", one_task(printing(LINES)))
    await tab.goto(f"/ui/runs/{run.id}/log/print/0")
    for line in (LINES, LINES // 2, 1):
        if line != LINES:
            await tab.evaluate("line => { location.hash = `L${line}` }", line)
        shown = tab.locator(f"#L{line}")
        await shown.wait_for()
        assert f"line {line:09} " in await shown.inner_text()
        numbers = await tab.locator(".log-rows .line").evaluate_all(NUMBERS)
        assert numbers == [*range(numbers[0], numbers[-1] + 1)]
        assert await tab.evaluate(NODES) <= MAX_NODES


async def test_a_log_that_grows_is_shown_whole_and_in_order(tab: Page, site: Site) -> None:
    lines = 6000
    part = f"seq -f 'line %09.0f' 1 {lines // 2}; sleep 0.3; seq -f 'line %09.0f' {lines // 2 + 1} {lines}"
    created = NewRun("/project/large/branch/grows", "grows", one_task(part))
    run = await site.client.runs.create(created)
    await tab.goto(f"/ui/runs/{run.id}/log/print/0")
    await tab.locator(f"#L{lines}").wait_for()
    await tab.locator("#L1").wait_for(state="attached")
    assert await tab.locator(".log-rows .line").evaluate_all(NUMBERS) == [*range(1, lines + 1)]


async def test_each_view_of_a_run_of_many_tasks_has_all_of_them_in_order(tab: Page, site: Site) -> None:
    tasks = many_tasks(TASKS)
    run = await ended(site, "many", tasks)
    names = [str(task["name"]) for task in tasks.values()]
    for view, rows in ROWS.items():
        await tab.goto(f"/ui/runs/{run.id}?view={view}")
        await tab.locator(rows).nth(TASKS - 1).wait_for()
        texts = await tab.locator(rows).all_text_contents()
        assert len(texts) == TASKS
        assert all(name in text for name, text in zip(names, texts, strict=True)), view
        assert await tab.evaluate(NODES) <= MAX_NODES
