"""The page of a group: its queue and durations. The page of events: the log as it comes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from runstream.client import Source
from tests.page.conftest import Site

if TYPE_CHECKING:
    from playwright.async_api import Page

WAITS = """
runs:
  - name: waits
    tasks:
      - {name: hold, runtime: {type: host}, approval: true, steps: [{run: "true"}]}
"""
QUICK = """
runs:
  - name: quick
    tasks:
      - {name: one, runtime: {type: host}, steps: [{run: "true"}]}
"""
FLAKY = """
runs:
  - name: shaky
    tasks:
      - name: sometimes
        runtime: {type: host}
        retry: {max: 1, backoff: 1s}
        steps: [{run: 'test "$RUNSTREAM_TASK_ATTEMPT" = 2'}]
"""


async def test_a_group_shows_who_waits_for_whom_and_how_long_runs_take(tab: Page, site: Site) -> None:
    group = "/project/queued/branch/main"
    done = [await site.finished(QUICK, group) for _ in range(2)]
    first, second = await site.run(WAITS, group), await site.run(WAITS, group)
    await tab.goto(f"/ui/groups/{quote(group, safe='')}")
    entries = tab.locator(".queue > li")
    await entries.nth(1).get_by_text("of its group is running").wait_for()
    assert "Needs approval" in await entries.nth(0).inner_text()
    assert "Queued" in await entries.nth(1).inner_text()
    for run in done:
        assert await tab.get_by_role("link", name=re.compile(rf"^quick #{run.counter or '[12]'}: success in ")).count()
    await site.client.runs.cancel(second.id)
    await entries.nth(1).wait_for(state="detached")
    await site.client.runs.stop(first.id)
    await tab.get_by_text("Nothing runs or waits").wait_for()


async def test_flaky_tasks_lead_to_their_runs(tab: Page, site: Site) -> None:
    source = Source(branch="main", commit_sha="c" * 40)
    run = await site.finished(FLAKY, "/project/shaky/branch/main", source=source)
    assert run.result == "success"
    await tab.goto("/ui/flaky?q=sometimes")
    row = tab.locator("tbody tr")
    await row.get_by_text("1 failure in #1, passed in a later attempt at cccccccc").wait_for()
    assert "shaky of /project/shaky" in await row.inner_text()
    await row.get_by_role("link", name="#1").click()
    await tab.wait_for_url(f"{site.url}/ui/runs/{run.id}?task=sometimes")


async def test_events_come_as_they_are_appended_and_wait_while_paused(tab: Page, site: Site) -> None:
    await tab.goto("/ui/events?from=end&q=/project/tailed/")
    await tab.get_by_text("Live").wait_for()
    run = await site.run(QUICK, "/project/tailed/branch/main")
    row = tab.locator(".log-commits summary").filter(has_text="run created")
    await row.wait_for()
    await row.click()
    await tab.get_by_text(f"run/{run.id}", exact=True).wait_for()
    await tab.get_by_role("link", name="Events of this run").wait_for()
    await tab.get_by_role("heading", name="Events").click()
    await tab.keyboard.press("p")
    await tab.get_by_text("Paused").wait_for()
    await site.run(QUICK, "/project/tailed/branch/main")
    go_on = tab.get_by_role("button", name=re.compile(r"Go on \(\d+ new commits?\)"))
    await go_on.wait_for()
    assert await row.count() == 1
    await go_on.click()
    await row.nth(1).wait_for()


async def test_events_begin_at_a_time_or_a_place(tab: Page, site: Site) -> None:
    source = Source(branch="x", commit_sha="b" * 40, message="<b>from a place</b>")
    await site.finished(QUICK, "/project/placed/branch/x", source=source)
    await tab.goto("/ui/events?q=/project/placed/&kind=run")
    await tab.locator(".log-commits summary").filter(has_text="run created").wait_for()
    await tab.get_by_label("From", exact=True).select_option("start")
    await tab.wait_for_url(re.compile("from=start"))
    await tab.locator(".log-commits summary").filter(has_text="run created").wait_for()
    await tab.get_by_label("A place or time of the log").fill("1:0,0")
    await tab.get_by_label("A place or time of the log").press("Enter")
    await tab.wait_for_url(re.compile(r"from=1%3A0%2C0"))
    await tab.locator(".log-commits summary").filter(has_text="run created").wait_for()
