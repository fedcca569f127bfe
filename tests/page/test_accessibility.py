"""axe finds nothing, on any page, in either theme."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.conftest import Site, administrator

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    from tests.page.browser import Errors

RUN = """
runs:
  - name: seen
    tasks:
      - {name: one, runtime: {type: host}, steps: [{run: {name: do, command: "exit 1"}}]}
"""

PAGES = (
    "/",
    "/?result=success&text=nothing",
    "/login",
    "/nowhere",
    "/groups/%2Fproject%2Faxe%2Fbranch%2Fmain",
    "/events",
    "/flaky",
    "/runs/{run}?view=graph",
    "/runs/{run}?view=timeline",
    "/runs/{run}?view=table",
    "/runs/{run}?at=2000-01-01T00:00:00Z",
    "/runs/{run}/events",
    "/runs/{run}/diff?vs={run}",
    "/runs/{run}/restart?scope=chosen&task=one",
    "/runs/{run}/log/one/0#L1",
    "/p",
    "/g/org/axe",
    "/g/org/axe?tab=secrets",
    "/orgs/axe",
    "/admin",
    "/executors",
    "/ops/health",
    "/ops/maintenance",
    "/ops/snapshots",
    "/ops/parked",
    "/ops/fsck",
    "/ops/storage",
)
"""Each page, by its path below /ui."""
_SEEN: dict[str, str] = {}


@pytest.fixture(scope="module")
async def watched_tab(site: Site, browser: Browser, login: Any) -> AsyncIterator[tuple[Page, Errors]]:
    """A tab for all tests here, which only look, and its errors: what it has compiled of the page and of axe stays."""
    from tests.page.browser import watched

    async with administrator(site, browser, login) as context:
        errors = await watched(context)
        yield await context.new_page(), errors


@pytest.fixture
async def tab(watched_tab: tuple[Page, Errors]) -> AsyncIterator[Page]:
    """The tab, its errors checked at the end of each test."""
    page, errors = watched_tab
    errors.found.clear()
    await page.emulate_media(color_scheme="light")
    yield page
    assert errors.unexpected == []


async def seen(site: Site) -> str:
    """Return the id of a run of the service, which has an organization, too."""
    if site.url not in _SEEN:
        run = await site.finished(RUN, "/project/axe/branch/main")
        await site.client.organizations.create("axe")
        _SEEN[site.url] = run.id
    return _SEEN[site.url]


@pytest.mark.parametrize("path", PAGES)
async def test_axe_finds_nothing(tab: Page, site: Site, path: str) -> None:
    from tests.page.accessibility import violations

    run = await seen(site)
    await tab.goto(f"/ui{path.format(run=run)}")
    await tab.locator("h1, .empty").first.wait_for()
    assert await violations(tab) == []


async def test_axe_finds_nothing_in_dialogs_and_menus(tab: Page) -> None:
    from tests.page.accessibility import violations

    await tab.goto("/ui/")
    await tab.get_by_role("heading", name="Runs").wait_for()
    await tab.keyboard.press("Control+k")
    await tab.get_by_role("option").first.wait_for()
    assert await violations(tab) == []
    await tab.keyboard.press("Escape")
    await tab.keyboard.press("?")
    await tab.get_by_role("dialog", name="Keys").wait_for()
    assert await violations(tab) == []
    await tab.keyboard.press("Escape")
    await tab.get_by_role("button", name="Appearance").click()
    await tab.get_by_role("menuitemradio").first.wait_for()
    assert await violations(tab) == []
