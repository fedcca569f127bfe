"""The pages for administrators: executors, maintenance, export and import, the check; and a gateway that goes away."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runstream.client import Client
from tests.conftest import drop_schema
from tests.page.conftest import WAIT_MS, Site
from tests.page.test_keyboard import press
from tests.service.running import serving

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

HELLO = """
runs:
  - name: hello
    tasks:
      - {name: one, runtime: {type: host}, steps: [{run: echo hello}]}
"""
APPROVAL = """
runs:
  - name: release
    tasks:
      - {name: build, runtime: {type: host}, steps: [{run: echo built}]}
      - {name: deploy, depends: [build], approval: true, runtime: {type: host}, steps: [{run: echo deployed}]}
"""
CHECK_MS = 40_000
"""How long the check of a service may take that many tests use, on a machine that does much else."""


async def test_an_executor_is_drained_and_undrained(tab: Page) -> None:
    await tab.goto("/ui/executors")
    row = tab.get_by_role("row").nth(1)
    await row.get_by_text("Ready").wait_for()
    await row.get_by_role("button", name="Drain").click()
    await row.get_by_text("Drained").wait_for()
    await row.get_by_role("button", name="Undrain").click()
    await row.get_by_text("Ready").wait_for()


async def test_the_check_compares_every_row_with_the_log(tab: Page, site: Site) -> None:
    await site.finished(HELLO, "/project/checked/branch/main")
    await tab.goto("/ui/ops/fsck")
    await tab.get_by_role("button", name="Check now").click()
    await tab.get_by_text("Every row is what the log says").wait_for(timeout=CHECK_MS)


async def test_health_storage_and_parked_commits_are_shown(tab: Page, site: Site) -> None:
    await site.finished(HELLO, "/project/shown/branch/main")
    await tab.goto("/ui/ops")
    await tab.get_by_role("row").filter(has_text="NATS version").get_by_text("Right").wait_for()
    await tab.get_by_role("link", name="Parked commits").click()
    await tab.get_by_text("No commit is parked").wait_for()
    await tab.get_by_role("link", name="Storage").click()
    await tab.get_by_role("row").filter(has_text="logs").first.wait_for()


@pytest.fixture
async def own(nats_url: str, database_url: str) -> AsyncIterator[dict[str, str]]:
    """The environment of a service of the test's own."""
    name = secrets.token_hex(6)
    yield {
        "RUNSTREAM_NATS_URL": nats_url,
        "RUNSTREAM_DATABASE_URL": database_url,
        "RUNSTREAM_NAMESPACE": f"ops{name}",
        "RUNSTREAM_DATABASE_SCHEMA": f"ops_{name}",
        "RUNSTREAM_PARTITIONS": "2",
    }
    await drop_schema(database_url, f"ops_{name}")


@asynccontextmanager
async def logged_in(browser: Browser, url: str, data: Path, *expected: str) -> AsyncIterator[tuple[Site, Page]]:
    """Open a tab of a service, as its administrator."""
    from tests.page.browser import watched

    token = json.loads((data / "service.json").read_text())["token"]
    context = await browser.new_context(base_url=url, accept_downloads=True)
    context.set_default_timeout(2 * WAIT_MS)
    errors = await watched(context)
    for pattern in expected:
        errors.expect(pattern)
    tab = await context.new_page()
    await tab.goto(f"/ui/login#{token}")
    await tab.wait_for_url(f"{url}/ui/")
    async with Client(url, token=token) as client:
        yield Site(url, token, client), tab
    assert errors.unexpected == []
    await context.close()


async def test_a_page_goes_on_when_a_killed_service_comes_back(
    browser: Browser, own: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with (
        serving(data, "--port", "0", **own) as first,
        logged_in(browser, first.url, data, "ERR_", "status of 503") as (site, tab),
    ):
        run = await site.run(APPROVAL, "/project/killed/branch/main")
        await tab.goto(f"/ui/runs/{run.id}?task=deploy")
        await tab.get_by_role("button", name="Approve deploy").wait_for()
        await tab.evaluate("window.same = true")
        first.look_again()
        first.process.kill()
        await first.ended()
        await tab.get_by_text("Disconnected").wait_for()
        async with serving(data, "--port", first.url.rpartition(":")[2], **own):
            await site.client.runs.approve(run.id, "deploy")
            async with site.client.events.tail(run=run.id) as tail:
                async for commit in tail:
                    if any(event.type == "RunArchived" for event in commit.events):
                        break
            count = (await site.client.runs.history(run.id)).count
            await tab.locator(".run-title [data-state=success]").wait_for()
            await tab.get_by_text("Disconnected").wait_for(state="detached")
            # No commit is lost, and none comes twice.
            await tab.locator(".time-words").get_by_text(f"{count} commits").wait_for()
            assert await tab.evaluate("window.same")


async def test_the_page_of_events_has_each_commit_once_across_a_kill(
    browser: Browser, own: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with (
        serving(data, "--port", "0", **own) as first,
        logged_in(browser, first.url, data, "ERR_", "status of 503") as (site, tab),
    ):
        await tab.goto("/ui/events?from=start")
        await site.finished(HELLO, "/project/before/branch/main")
        row = tab.locator(".log-commits summary")
        await row.filter(has_text="run finished").first.wait_for()
        await site.run(APPROVAL, "/project/during/branch/main")
        first.look_again()
        first.process.kill()
        await first.ended()
        await tab.get_by_text("Disconnected").wait_for()
        async with serving(data, "--port", first.url.rpartition(":")[2], **own):
            run = await site.finished(HELLO, "/project/after/branch/main")
            positions = []
            async with site.client.events.tail("start") as tail:
                async for commit in tail:
                    positions.append(str(commit.position))
                    if run.id in commit.aggregate and any(event.type == "RunFinished" for event in commit.events):
                        break
            await tab.wait_for_function(
                """positions => {
                  const shown = [...document.querySelectorAll(".log-commits summary > code:last-child")];
                  const found = new Set(shown.map((one) => one.textContent));
                  return positions.every((one) => found.has(one));
                }""",
                arg=positions,
            )
            shown = await row.locator("> code:last-child").all_inner_texts()
            assert len(shown) == len(set(shown))


async def test_maintenance_export_and_import_through_the_page(
    browser: Browser, own: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with (
        serving(data, "--port", "0", **own) as service,
        logged_in(browser, service.url, data, "status of (503|409|404)") as (site, tab),
    ):
        await _export_and_import(site, tab, tmp_path)


async def _export_and_import(site: Site, tab: Page, folder: Path) -> None:
    run = await site.finished(HELLO, "/project/kept/branch/main")
    await tab.goto("/ui/ops/snapshots")
    async with tab.expect_download() as told:
        await tab.get_by_role("link", name="Download").click()
    file = folder / "export.snapshot"
    await (await told.value).save_as(file)
    await site.finished(HELLO, "/project/lost/branch/main")
    for service in ("Runs", "Projects and people"):
        await tab.goto("/ui/ops/maintenance")
        block = tab.locator(".block").filter(has_text=service)
        await press(block.get_by_role("button", name="Begin maintenance"))
        await tab.get_by_label("Reason").and_(tab.locator(":focus")).wait_for()
        await tab.keyboard.type("an import")
        await tab.keyboard.press("Enter")
        await block.get_by_text("in maintenance").wait_for()
    await tab.goto("/ui/ops/snapshots")
    await tab.get_by_label("Snapshot file").set_input_files(file)
    await tab.get_by_role("button", name="Check the file").click()
    await tab.get_by_text("The file can be imported: ").wait_for()
    await press(tab.get_by_role("button", name="Import…"))
    await tab.get_by_role("dialog").get_by_role("textbox").and_(tab.locator(":focus")).wait_for()
    await tab.keyboard.type("import")
    await tab.keyboard.press("Enter")
    await tab.get_by_text("The file is imported: ").wait_for()
    await tab.goto("/ui/")
    await tab.get_by_text("In maintenance", exact=True).wait_for()
    await tab.goto("/ui/ops/maintenance")
    for service in ("Projects and people", "Runs"):
        block = tab.locator(".block").filter(has_text=service)
        await block.get_by_role("button", name="End maintenance").click()
        await block.locator("[data-mode=running]").wait_for()
    await tab.goto("/ui/")
    await tab.locator(f'a[href="/ui/runs/{run.id}"]').wait_for()
    assert await tab.get_by_text("/project/lost").count() == 0
