"""The list of runs: live, filtered by the address, paged, by keyboard; names of others are text."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from runstream.client import Source
from tests.page.conftest import Site

if TYPE_CHECKING:
    from playwright.async_api import Page, Request, Route


def config(name: str, command: str = "true", more: str = "") -> str:
    return f"""
runs:
  - name: {name}
    tasks:
      - {{name: one, runtime: {{type: host}}, steps: [{{run: {{name: do, command: "{command}"}}}}]}}
{more}
"""


async def test_filters_are_in_the_address_and_come_back_with_it(tab: Page, site: Site) -> None:
    group = "/project/filters/branch"
    await site.finished(config("zebra-good"), f"{group}/main")
    await site.finished(config("zebra-bad", "exit 3"), f"{group}/main")
    await site.finished(config("zebra-other"), f"{group}/feature")
    rows = tab.locator("tbody tr")
    await tab.goto("/ui/?text=zebra")
    await rows.nth(2).wait_for()
    await tab.get_by_role("button", name=re.compile("^Failed")).click()
    await tab.wait_for_url(re.compile(r"\?text=zebra&result=failed$"))
    await rows.nth(1).wait_for(state="detached")
    assert "zebra-bad" in await rows.first.inner_text()
    await tab.go_back()
    await rows.nth(2).wait_for()
    await tab.get_by_label("Only the last of each group").check()
    await rows.nth(2).wait_for(state="detached")
    assert await rows.count() == 2
    await tab.reload()
    await rows.nth(1).wait_for()
    assert await tab.get_by_label("Only the last of each group").is_checked()
    await tab.keyboard.press("/")
    await tab.keyboard.type("-nothing")
    await tab.get_by_text("No run matches").wait_for()
    await tab.get_by_role("button", name="Remove the filters").click()
    await rows.nth(2).wait_for()
    assert not await tab.get_by_label("Only the last of each group").is_checked()


async def test_a_slow_list_is_shown_though_runs_change_meanwhile(tab: Page, site: Site) -> None:
    """A read for each change would end the one before, and the list of a busy service would never be shown."""
    group = "/project/slow/branch/main"
    held, asked = asyncio.Event(), asyncio.Event()
    ended: list[Request] = []

    async def hold(route: Route) -> None:
        asked.set()
        await held.wait()
        await route.continue_()

    await tab.goto(f"/ui/?group={group}")
    await tab.get_by_text("No run matches").wait_for()
    tab.on("requestfailed", lambda request: ended.append(request))
    await tab.route("**/api/v1alpha/runs?**", hold)
    await site.run(config("slow-one"), group)
    await asked.wait()
    run = await site.finished(config("slow-two"), group)
    held.set()
    row = tab.locator("tbody tr").filter(has=tab.locator(f'a[href="/ui/runs/{run.id}"]'))
    await row.get_by_text("Success").wait_for()
    assert ended == []


async def test_a_row_shows_what_ran_and_of_what(tab: Page, site: Site) -> None:
    source = Source(branch="fix/login", commit_sha="4f2a9c81d0e7" + "0" * 28, message="Repair the login\n\nbody")
    more = "      - {name: two, depends: [one], runtime: {type: host}, steps: [{run: echo}]}"
    run = await site.finished(config("rows", "exit 1", more), "/project/rows/branch/fix%2Flogin", source=source)
    await tab.goto("/ui/?text=rows")
    row = tab.locator("tbody tr").filter(has=tab.locator(f'a[href="/ui/runs/{run.id}"]'))
    await row.get_by_text("Failed").wait_for()
    text = await row.inner_text()
    for part in ("rows", "#1", "/project/rows/branch/fix%2Flogin", "fix/login", "4f2a9c81", "Repair the login", "2/2"):
        assert part in text
    assert "body" not in text
    assert await row.get_by_role("img", name="2 tasks: 1 failed, 1 skipped").count() == 1


async def test_texts_of_others_are_shown_as_text_and_hidden_characters_as_escapes(tab: Page, site: Site) -> None:
    message = "\u202eevil <script>alert(1)</script> <img src=x onerror=alert(2)> " + "ש" * 200
    source = Source(branch="hostile", commit_sha="a" * 40, message=message)
    run = await site.finished(config("hostile"), "/project/hostile/branch/x", source=source)
    await tab.goto("/ui/?text=hostile")
    row = tab.locator("tbody tr").filter(has=tab.locator(f'a[href="/ui/runs/{run.id}"]'))
    await row.get_by_text("\\u202e").wait_for()
    assert "<script>alert(1)</script>" in await row.inner_text()
    assert await tab.locator("img, main script").count() == 0
    width = await tab.evaluate("document.documentElement.scrollWidth")
    assert width <= 1440


async def test_pages_have_addresses(tab: Page, site: Site) -> None:
    for _ in range(41):
        await site.run(config("paged"), "/project/paged/branch/main")
    rows = tab.locator("tbody tr")
    await tab.goto("/ui/?group=/project/paged")
    await rows.nth(39).wait_for()
    await tab.get_by_role("link", name="Older").click()
    await tab.get_by_role("link", name="Newest").wait_for()
    await rows.nth(1).wait_for(state="detached")
    assert "start=" in tab.url
    await tab.get_by_role("link", name="Newest").click()
    await rows.nth(39).wait_for()


async def test_rows_are_reached_by_keyboard(tab: Page, site: Site) -> None:
    first = await site.finished(config("keys-a"), "/project/rowkeys/branch/main")
    await site.finished(config("keys-b"), "/project/rowkeys/branch/main")
    await tab.goto("/ui/?group=/project/rowkeys")
    await tab.locator("tbody tr").nth(1).wait_for()
    for key in ("j", "j", "j", "k", "j", "Enter"):
        await tab.keyboard.press(key)
    await tab.wait_for_url(f"{site.url}/ui/runs/{first.id}")


async def test_the_page_fits_a_window_of_320_pixels(tab: Page) -> None:
    await tab.set_viewport_size({"width": 320, "height": 640})
    for path in ("/ui/", "/ui/login"):
        await tab.goto(path)
        await tab.get_by_role("heading", level=1).wait_for()
        assert await tab.evaluate("document.documentElement.scrollWidth") == 320, path
