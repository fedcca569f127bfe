"""The page while its service is killed, restarted or in maintenance, and while its tab is hidden."""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runstream.client import Client
from runstream.embedded.process import free_port
from tests.page.conftest import WAIT_MS, Site, try_now
from tests.servers import Servers
from tests.service.running import Service, serving

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Request

QUICK = """
runs:
  - name: quick
    tasks:
      - {name: one, runtime: {type: host}, steps: [{run: "true"}]}
"""
HIDE = """
Object.defineProperty(Document.prototype, "hidden", { get: () => window.hiddenNow ?? false, configurable: true });
window.hide = (hidden) => { window.hiddenNow = hidden; document.dispatchEvent(new Event("visibilitychange")); };
"""


async def test_the_page_goes_on_after_a_kill_and_after_maintenance(
    servers: Servers, open_path: Path, browser: Browser
) -> None:
    from tests.page.browser import watched

    token, port = secrets.token_hex(20), free_port("127.0.0.1")

    @asynccontextmanager
    async def service() -> AsyncIterator[Service]:
        environment = {
            "RUNSTREAM_NATS_URL": servers.nats_url,
            "RUNSTREAM_DATABASE_URL": servers.database_url,
            "RUNSTREAM_NAMESPACE": servers.namespace,
            "RUNSTREAM_DATABASE_SCHEMA": servers.schema,
            "RUNSTREAM_TOKEN": token,
            "RUNSTREAM_PARTITIONS": "1",
        }
        async with serving(open_path / "data", "--port", str(port), **environment) as running:
            yield running

    url = f"http://127.0.0.1:{port}"
    context = await browser.new_context()
    context.set_default_timeout(2 * WAIT_MS)
    errors = await watched(context)
    errors.expect("status of 503|net::ERR_")
    tab = await context.new_page()
    async with Client(url, token=token) as client:
        site = Site(url, token, client)
        async with service() as first:
            await tab.goto(f"{url}/ui/login#{token}")
            run = await site.run(QUICK)
            await tab.locator(f'a[href="/ui/runs/{run.id}"]').wait_for()
            await tab.evaluate("window.same = true")
            first.signal(signal.SIGKILL)
            await first.ended()
            await tab.get_by_text("Disconnected", exact=True).wait_for()
        async with service():
            await try_now(tab)
            await tab.get_by_text("Disconnected", exact=True).wait_for(state="detached")
            run = await site.run(QUICK)
            await tab.locator(f'a[href="/ui/runs/{run.id}"]').wait_for()
            await client.maintenance.enable("runs", reason="moving house")
            await tab.get_by_text("In maintenance", exact=True).wait_for()
            await tab.get_by_text("moving house").first.wait_for()
            late = await context.new_page()
            await late.goto(f"{url}/ui/")
            await late.get_by_text("In maintenance", exact=True).wait_for()
            await client.maintenance.disable("runs")
            for page in (tab, late):
                await try_now(page)
                await page.get_by_text("In maintenance", exact=True).wait_for(state="detached")
                await page.locator(f'a[href="/ui/runs/{run.id}"]').wait_for()
            run = await site.run(QUICK)
            await tab.locator(f'a[href="/ui/runs/{run.id}"]').wait_for()
            assert await tab.evaluate("window.same"), "the page was not loaded again"
    await context.close()
    assert errors.unexpected == []


async def test_a_hidden_tab_asks_for_nothing_and_resumes_at_its_position(tab: Page, site: Site) -> None:
    await tab.add_init_script(HIDE)
    await tab.goto("/ui/events?from=end&q=/project/hidden/")
    await tab.get_by_text("Live", exact=True).wait_for()
    await site.run(QUICK, "/project/hidden/branch/a")
    rows = tab.locator(".log-commits summary").filter(has_text="run created")
    await rows.wait_for()
    asked: list[Request] = []
    tab.on("request", lambda request: asked.append(request))
    async with tab.expect_event("requestfailed"):
        await tab.evaluate("hide(true)")
    await site.finished(QUICK, "/project/hidden/branch/b")
    assert asked == []
    assert await rows.count() == 1
    await tab.evaluate("hide(false)")
    await rows.nth(1).wait_for()
    (resumed,) = asked
    assert (await resumed.all_headers())["last-event-id"].count(":") == 1
    assert await rows.count() == 2, "no commit is lost, and none comes twice"


async def test_eight_tabs_stay_live(tab: Page, site: Site) -> None:
    """A browser shows one tab of a window: the streams of the others would take its six connections."""
    await tab.context.add_init_script(HIDE)
    tabs = [tab, *[await tab.context.new_page() for _ in range(7)]]
    for one in tabs:
        await one.goto("/ui/?group=/project/eight")
        await one.get_by_text("No run matches").wait_for()
        await one.evaluate("hide(true)")
    run = await site.run(QUICK, "/project/eight/branch/main")
    for one in tabs:
        await one.evaluate("hide(false)")
        await one.locator(f'a[href="/ui/runs/{run.id}"]').wait_for()
        await one.evaluate("hide(true)")
