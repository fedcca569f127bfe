"""Everything that a page lets a reader do, it lets them do by keyboard.

A walk with Tab over each page shows that every link, button and field takes the focus, and that nothing takes a click
which does not. The keys that `?` lists are pressed, and what destroys is confirmed, and refused, without a mouse.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.page.conftest import Site
from tests.page.test_accessibility import PAGES, seen

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

NOTE_CLICKS = """
window.clickable = new Set();
const add = EventTarget.prototype.addEventListener;
EventTarget.prototype.addEventListener = function (name, ...rest) {
  if (name === "click" && this instanceof Element) window.clickable.add(this);
  return add.call(this, name, ...rest);
};
"""
"""Notes each element that listens for clicks itself."""
UNREACHED = """(reached) => {
  const focusable = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  const shown = (one) => one.isConnected && one.checkVisibility() && !one.matches(":disabled");
  const rest = [...document.querySelectorAll(focusable)].filter((one) => shown(one) && !window.reached.has(one));
  const mouse = [...window.clickable].filter((one) => shown(one) && !one.closest(focusable));
  const chosen = (one) => one.type === "radio" && [...window.reached].some((other) => other.name === one.name);
  return [...rest.filter((one) => !chosen(one)), ...mouse].map((one) => one.outerHTML.slice(0, 160));
}"""
"""Elements that Tab has not reached, and those that only a mouse reaches."""
MAX_STOPS = 400

STEPS = r"""
runs:
  - name: steps
    tasks:
      - {name: clone, runtime: {type: host}, steps: [{run: echo cloned}]}
      - name: unit
        depends: [clone]
        runtime: {type: host}
        steps: [{run: seq 400}, {run: {name: test, command: "seq 400; exit 3"}}]
"""
HELD = """
runs:
  - name: held
    tasks:
      - {name: deploy, approval: true, runtime: {type: host}, steps: [{run: echo deployed}]}
"""


@pytest.mark.parametrize("path", PAGES)
async def test_tab_reaches_everything(tab: Page, site: Site, path: str) -> None:
    run = await seen(site)
    await tab.add_init_script(NOTE_CLICKS)
    await tab.goto(f"/ui{path.format(run=run)}")
    await tab.locator("h1, .empty").first.wait_for()
    await tab.locator(".skeleton").first.wait_for(state="detached")
    await tab.evaluate("() => { window.reached = new Set(); document.activeElement.blur(); }")
    for _ in range(MAX_STOPS):
        await tab.keyboard.press("Tab")
        known = await tab.evaluate(
            "() => { const one = document.activeElement; const had = window.reached.has(one);"
            " window.reached.add(one); return had }"
        )
        if known and await tab.evaluate(UNREACHED) == []:
            break
        if known:
            # The walk is round; what came meanwhile is seen in the next one.
            await tab.evaluate("document.activeElement === document.body && window.reached.delete(document.body)")
    assert await tab.evaluate(UNREACHED) == []


async def press(target: Locator, key: str = "Enter") -> None:
    """Focus an element and press a key, as a reader does who came to it by Tab."""
    await target.focus()
    await target.page.keyboard.press(key)


async def test_the_keys_of_a_run_do_what_the_help_says(tab: Page, site: Site) -> None:
    run = await site.finished(STEPS, "/project/keys/branch/main")
    await tab.goto(f"/ui/runs/{run.id}")
    keys = tab.keyboard
    log = tab.get_by_role("log")
    await log.get_by_text("400", exact=True).first.wait_for()
    for key, rows in (("1", ".node"), ("2", ".timeline-row"), ("3", ".task-table tbody tr")):
        await keys.press(key)
        await tab.locator(rows).first.wait_for()
    await keys.press("b")
    await tab.locator("#L1").wait_for()
    await tab.wait_for_function("document.querySelector('.log-view').scrollTop < 100")
    await keys.press("e")
    await tab.wait_for_function("document.querySelector('.log-view').scrollTop > 1000")
    await keys.press("w")
    await tab.locator(".log-view.wrap").wait_for()
    await keys.press("w")
    await tab.locator(".log-view:not(.wrap)").wait_for()
    await keys.press("[")
    await tab.get_by_text(re.compile("^as of ")).wait_for()
    earlier = tab.url
    await keys.press("[")
    await tab.wait_for_function("before => location.href !== before", arg=earlier)
    await keys.press("]")
    await tab.wait_for_url(earlier)
    await keys.press("l")
    await tab.get_by_text(re.compile("^as of ")).wait_for(state="detached")
    await keys.press("t")
    await tab.get_by_role("dialog", name="Go to a time").wait_for()
    await keys.type("2100-01-01T00:00:00Z")
    await keys.press("Enter")
    await tab.get_by_role("dialog").wait_for(state="detached")
    await keys.press("?")
    await tab.get_by_role("dialog", name="Keys").get_by_text("Next failed task").wait_for()
    listed = await tab.get_by_role("dialog", name="Keys").locator("dt").all_inner_texts()
    assert {"1", "2", "3", "b", "e", "w", "[", "]", "l", "t", "j", "k", "n", "p", "f"} <= set(listed)
    await keys.press("Escape")
    await tab.get_by_role("dialog").wait_for(state="detached")


async def test_a_run_is_paused_resumed_approved_and_stopped_by_keyboard(tab: Page, site: Site) -> None:
    run = await site.run(HELD, "/project/keyed/branch/main")
    await tab.goto(f"/ui/runs/{run.id}")
    button = tab.get_by_role("button", name="Pause", exact=True)
    await press(button)
    await press(tab.get_by_role("button", name="Resume"), "Space")
    await button.wait_for()
    stop = tab.get_by_role("button", name="Stop", exact=True)
    await press(stop)
    await tab.get_by_role("dialog").get_by_role("button", name="Stop run").and_(tab.locator(":focus")).wait_for()
    await tab.keyboard.press("Escape")
    await tab.get_by_role("dialog").wait_for(state="detached")
    assert (await site.client.runs.get(run.id)).phase == "running"
    await stop.and_(tab.locator(":focus")).wait_for()
    await press(tab.get_by_role("button", name="Approve deploy"))
    await tab.locator(".run-title [data-state=success]").wait_for()
    other = await site.run(HELD, "/project/keyed/branch/main")
    await tab.goto(f"/ui/runs/{other.id}")
    await press(stop)
    await tab.get_by_role("dialog").get_by_role("button", name="Stop run").and_(tab.locator(":focus")).wait_for()
    await tab.keyboard.press("Enter")
    await tab.locator(".run-title [data-state=stopped]").wait_for()


async def test_menus_and_choices_are_used_by_keyboard(tab: Page, site: Site) -> None:
    run = await site.finished(STEPS, "/project/menus/branch/main")
    await tab.goto(f"/ui/runs/{run.id}")
    await press(tab.get_by_role("button", name="Restart"))
    items = tab.get_by_role("menuitem")
    await items.first.and_(tab.locator(":focus")).wait_for()
    await tab.keyboard.press("End")
    await tab.get_by_role("menuitem", name="Choose tasks").and_(tab.locator(":focus")).wait_for()
    await tab.keyboard.press("Enter")
    await tab.wait_for_url(re.compile("/restart"))
    await press(tab.get_by_role("button", name="Chosen tasks"))
    await press(tab.get_by_role("checkbox", name="unit"), "Space")
    await tab.get_by_text("1 task runs again, 1 task is kept.").wait_for()
    await press(tab.get_by_role("button", name=re.compile("^Restart")).last)
    await tab.wait_for_url(re.compile(rf"/ui/runs/(?!{run.id})"))
    await press(tab.get_by_role("button", name="More"))
    await items.first.and_(tab.locator(":focus")).wait_for()
    await tab.keyboard.press("Escape")
    await items.first.wait_for(state="hidden")


async def test_a_run_is_deleted_by_keyboard(tab: Page, site: Site) -> None:
    run = await site.finished(STEPS, "/project/deleted/branch/main")
    await tab.goto(f"/ui/runs/{run.id}")
    more = tab.get_by_role("button", name="More")
    delete = tab.get_by_role("dialog").get_by_role("button", name="Delete run").and_(tab.locator(":focus"))
    for key in ("Escape", "Enter"):
        await press(more)
        await tab.get_by_role("menuitem").first.and_(tab.locator(":focus")).wait_for()
        await tab.keyboard.press("End")
        await tab.keyboard.press("Enter")
        await delete.wait_for()
        await tab.keyboard.press(key)
        await delete.wait_for(state="detached")
        if key == "Escape":
            await more.and_(tab.locator(":focus")).wait_for()
    await tab.wait_for_url(f"{site.url}/ui/")
    commits = (await site.client.runs.history(run.id)).commits
    assert "RunDeleted" in [event.type for commit in commits for event in commit.events]


async def test_a_wide_graph_is_a_list_by_levels_in_a_narrow_window(tab: Page, site: Site) -> None:
    names = ["one", "two", "three", "four"]
    tasks = "\n".join(
        f"      - {{name: {name}, depends: [{before}], runtime: {{type: host}}, steps: [{{run: echo}}]}}"
        for name, before in zip(names, ["", *names], strict=False)
    )
    run = await site.finished(f"runs:\n  - name: chain\n    tasks:\n{tasks}\n", "/project/wide/branch/main")
    await tab.set_viewport_size({"width": 390, "height": 844})
    await tab.goto(f"/ui/runs/{run.id}?view=graph")
    levels = tab.locator(".graph.levels > div")
    await levels.nth(3).wait_for()
    assert [name.strip() for name in await levels.locator(".cut").all_inner_texts()] == names
    for node in await levels.locator(".node").all():
        box = await node.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390
    await press(levels.locator(".node").nth(1))
    await tab.wait_for_url(re.compile("task=two"))
    await tab.set_viewport_size({"width": 1440, "height": 900})
    await tab.locator(".graph .edges path").first.wait_for(state="attached")


async def test_lines_of_a_log_are_chosen_folded_and_found_by_keyboard(tab: Page, site: Site) -> None:
    config = HELD.replace("approval: true, ", "").replace(
        "echo deployed", "echo ::group::many; seq 5; echo ::endgroup::; echo last"
    )
    run = await site.finished(config, "/project/lines/branch/main")
    await tab.goto(f"/ui/runs/{run.id}/log/deploy/0")
    await press(tab.get_by_label("Line 3", exact=True))
    await tab.wait_for_url(re.compile("#L3$"))
    await press(tab.get_by_label("Line 5", exact=True), "Shift+Enter")
    await tab.wait_for_url(re.compile("#L3-L5$"))
    await press(tab.get_by_role("button", name="many"))
    assert await tab.locator(".line-text:visible").all_inner_texts() == ["last"]
    find = tab.get_by_role("searchbox", name="Find in the whole log")
    await find.fill("last")
    await find.press("Enter")
    await tab.get_by_text("1 of 1").wait_for()


async def test_an_executor_is_drained_by_keyboard_in_a_narrow_window(tab: Page) -> None:
    await tab.set_viewport_size({"width": 390, "height": 844})
    await tab.goto("/ui/executors")
    drain = tab.get_by_role("button", name="Drain", exact=True)
    await drain.wait_for()
    box = await drain.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 390
    await press(drain)
    await press(tab.get_by_role("button", name="Undrain"))
    await drain.wait_for()
