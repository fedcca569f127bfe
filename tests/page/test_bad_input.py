"""What the page says about bad input: refusals, failures of the API, logs that are no text, another zone, no script."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.page.conftest import Site, try_now
from tests.page.test_people import tab_of

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Route

    from tests.page.browser import Errors

ODD = r"""
runs:
  - name: odd
    tasks:
      - name: one
        runtime: {type: host}
        steps:
          - {run: {name: binary, command: "head -c 4096 /dev/zero; printf '\\377\\376\\001\\033[2Jend of it\\n'"}}
          - {run: {name: wide, command: "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after the line"}}
"""


@pytest.mark.parametrize(
    ("status", "says"), [(500, "The service answered 500"), (503, "Not available"), (502, "Not available")]
)
async def test_an_answer_of_no_gateway_is_told_and_the_page_comes_back(
    tab: Page, errors: Errors, status: int, says: str
) -> None:
    errors.expect(f"status of {status}")
    broken = True

    async def answer(route: Route) -> None:
        await (route.fulfill(status=status, body="<h1>oops</h1>") if broken else route.continue_())

    await tab.route("**/api/v1alpha/runs?*", answer)
    await tab.goto("/ui/")
    await tab.get_by_text(says).first.wait_for()
    broken = False
    await (tab.get_by_role("button", name="Try again").click() if status == 500 else try_now(tab))
    await tab.get_by_text(says).first.wait_for(state="detached")
    await tab.locator("tbody tr, .empty").first.wait_for()


async def test_a_run_of_a_private_project_does_not_exist_for_an_outsider(site: Site, browser: Browser) -> None:
    run = await site.finished(ODD, "/project/private/branch/main")
    async with tab_of(site, browser, "ida", "status of (403|404)") as tab:
        for path in (f"/ui/runs/{run.id}", f"/ui/runs/{run.id}/events", f"/ui/runs/{run.id}/log/one/0"):
            await tab.goto(path)
            await tab.get_by_role("alert").wait_for()
            assert await tab.get_by_text("end of it").count() == 0


async def test_a_log_of_bytes_and_one_of_a_single_long_line_are_shown(tab: Page, site: Site) -> None:
    run = await site.finished(ODD, "/project/odd/branch/main")
    await tab.goto(f"/ui/runs/{run.id}/log/one/0")
    await tab.get_by_role("log").get_by_text("end of it").wait_for()
    await tab.goto(f"/ui/runs/{run.id}/log/one/1")
    await tab.get_by_role("log").get_by_text("after the line").wait_for()
    assert await tab.evaluate("document.documentElement.scrollWidth") <= 1440


async def test_times_are_those_of_the_zone_of_the_browser(site: Site, browser: Browser, login: object) -> None:
    from tests.page.browser import watched

    run = await site.finished(ODD, "/project/zone/branch/main")
    context = await browser.new_context(storage_state=login, base_url=site.url, timezone_id="Asia/Kathmandu")  # type: ignore[arg-type]
    errors = await watched(context)
    tab = await context.new_page()
    await tab.goto(f"/ui/runs/{run.id}/events")
    title = await tab.locator(".commit time").first.get_attribute("title")
    assert title is not None
    assert title.endswith("+05:45")
    await tab.get_by_role("button", name="Appearance").click()
    await tab.get_by_role("menuitemradio", name="UTC", exact=True).click()
    await tab.locator('.commit time[title$="Z"]').first.wait_for()
    assert errors.unexpected == []
    await context.close()


async def test_without_javascript_the_page_names_the_command(site: Site, browser: Browser) -> None:
    context = await browser.new_context(java_script_enabled=False, base_url=site.url)
    tab = await context.new_page()
    await tab.goto("/ui/runs/1b4e")
    # A text is not looked for inside of noscript, whose elements are shown here.
    await tab.locator("noscript pre").wait_for()
    assert "run get 1b4e" in await tab.locator("noscript pre").inner_text()
    assert "This page needs JavaScript" in await tab.locator("noscript").inner_text()
    await context.close()
