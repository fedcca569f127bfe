"""Large logs and runs, a tenth of those of `make bench-page`: what is there, in which order, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from benchmarks.page import MAX_NODES, NODES, ROWS, VIEWS, many_tasks, one_task, printing, printing_slowly

from runstream.client import NewRun, Run
from tests.page.conftest import Site

if TYPE_CHECKING:
    from playwright.async_api import Page

LINES, TASKS = 100_000, 200
NUMBERS = "rows => rows.map(row => Number(row.id.slice(1)))"
VIEW = "const view = document.querySelector('.log-view');"
TOP_LINE = f"""() => {{
  {VIEW}
  const top = view.getBoundingClientRect().top;
  const row = [...view.querySelectorAll(".line")].find((one) => one.getBoundingClientRect().bottom > top + 1);
  return Number(row.id.slice(1));
}}"""
"""The number of the first line that a reader sees."""


async def created(site: Site, name: str, tasks: Mapping[str, Mapping[str, object]]) -> Run:
    """Create a run."""
    return await site.client.runs.create(NewRun(f"/project/large/branch/{name}", name, tasks))


async def ended(site: Site, name: str, tasks: Mapping[str, Mapping[str, object]]) -> Run:
    """Create a run and wait for its end."""
    run = await created(site, name, tasks)
    await end_of(site, run)
    return run


async def end_of(site: Site, run: Run) -> None:
    """Wait for the end of a run."""
    async with site.client.events.tail(run=run.id) as tail:
        async for commit in tail:
            if any(event.type == "RunFinished" for event in commit.events):
                break


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
    run = await created(site, "grows", one_task(part))
    await tab.goto(f"/ui/runs/{run.id}/log/print/0")
    await tab.locator(f"#L{lines}").wait_for()
    await tab.locator("#L1").wait_for(state="attached")
    assert await tab.locator(".log-rows .line").evaluate_all(NUMBERS) == [*range(1, lines + 1)]


async def test_a_reader_goes_up_a_long_log_without_a_jump(tab: Page, site: Site) -> None:
    run = await ended(site, "up", one_task(printing(LINES // 2)))
    await tab.goto(f"/ui/runs/{run.id}/log/print/0#L40000")
    await tab.locator("#L40000.chosen").wait_for()
    top = await tab.evaluate(TOP_LINE)
    step = 100 * await tab.locator("#L40000").evaluate("row => row.getBoundingClientRect().height")
    for _ in range(60):
        # What is above has been read: the view can move by all of a step.
        await tab.wait_for_function(f"() => {{ {VIEW} return view.scrollTop > {step} }}")
        assert await tab.evaluate(TOP_LINE) == top
        await tab.evaluate(f"() => {{ {VIEW} view.scrollBy(0, -{step}) }}")
        top -= 100
    assert await tab.evaluate(NODES) <= MAX_NODES


async def test_a_log_that_grows_fast_is_followed_to_its_end_with_few_nodes(tab: Page, site: Site) -> None:
    lines = 45_000
    run = await created(site, "fast", one_task(printing_slowly(lines, 15_000)))
    await tab.goto(f"/ui/runs/{run.id}/log/print/0")
    await end_of(site, run)
    await tab.locator(f"#L{lines}").wait_for()
    numbers = await tab.locator(".log-rows .line").evaluate_all(NUMBERS)
    assert numbers == [*range(numbers[0], lines + 1)]
    await tab.wait_for_function(f"({NODES})() <= {MAX_NODES}")
    await tab.keyboard.press("b")
    await tab.locator("#L1").wait_for()
    await tab.get_by_role("button", name="To the end").last.click()
    await tab.locator(f"#L{lines}").wait_for()
    assert await tab.evaluate(TOP_LINE) > lines - 100


async def test_a_folded_group_hides_its_lines_and_no_others_in_a_long_log(tab: Page, site: Site) -> None:
    run = await ended(site, "fold", one_task("echo before; echo ::group::many; seq 250; echo ::endgroup::; echo after"))
    await tab.goto(f"/ui/runs/{run.id}/log/print/0")
    await tab.locator("#L254").wait_for()
    await tab.keyboard.press("b")
    await tab.get_by_role("button", name="many").click()
    assert await tab.locator(".line-text:visible").all_inner_texts() == ["before", "after"]
    await tab.evaluate("location.hash = 'L50-L220'")
    await tab.locator("#L220.chosen").wait_for(state="attached")
    assert await tab.locator(".line.chosen").evaluate_all(NUMBERS) == [*range(50, 221)]


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


async def test_of_many_tasks_the_rows_in_sight_are_in_the_document(tab: Page, site: Site) -> None:
    count = 320
    tasks = many_tasks(count)
    first, last = str(tasks["t0"]["name"]), str(tasks[f"t{count - 1}"]["name"])
    run = await ended(site, "sight", tasks)
    for view, scrolled in VIEWS.items():
        await tab.goto(f"/ui/runs/{run.id}?view={view}&task={first}")
        rows, scroller = tab.locator(ROWS[view]), tab.locator(scrolled)
        await rows.first.wait_for()
        assert await rows.count() < count // 2
        place = tab.locator(f'{scrolled} [data-row="{count - 1}"]')
        # What a screen reader says of a row counts those that are not there.
        whole, number = ("aria-rowcount", "aria-rowindex") if view == "table" else ("aria-setsize", "aria-posinset")
        sized = tab.locator(f"{scrolled} [{whole}]").first
        head = 1 if view == "table" else 0
        assert await sized.get_attribute(whole) == str(count + head)
        # The row with the focus stays while the view goes elsewhere.
        await tab.locator(f'{scrolled} [data-row="0"] a').focus()
        await scroller.evaluate("view => { view.scrollTop = view.scrollHeight }")
        await place.wait_for()
        assert await place.get_attribute(number) == str(count + head)
        assert last in str(await place.text_content())
        assert first in await tab.evaluate("document.activeElement.textContent")
        await tab.keyboard.press("Tab")
        assert first not in await tab.evaluate("document.activeElement.textContent")
        # The next task by its key comes into sight.
        await tab.keyboard.press("k")
        await tab.locator("h2").get_by_text(last, exact=True).wait_for()
        await tab.keyboard.press("j")
        await tab.locator(f'{scrolled} [data-row="0"]').wait_for()
        await place.wait_for(state="detached")
        # A name is found, though the browser's own find would not see its row.
        await tab.keyboard.press("/")
        await tab.keyboard.type(last)
        await rows.filter(has_text=last).wait_for()
        await tab.wait_for_function("([rows]) => document.querySelectorAll(rows).length === 1", arg=[ROWS[view]])
        await tab.keyboard.type(" no such")
        await tab.get_by_text("No task has this in its name").wait_for()
