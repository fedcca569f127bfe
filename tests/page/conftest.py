"""One service and one browser for all tests of the page; a context, logged in, for each test.

A test fails on any error on the console, any uncaught one, and any violation of the content security policy, unless it
says by `errors.expect` that it provokes one.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runstream.client import Client, Inputs, Run
from tests.conftest import drop_schema
from tests.service.running import serving

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

    from tests.page.browser import Errors

WAIT_MS = 10_000
"""How long a test waits for what the page shall show."""


@dataclass(frozen=True, slots=True)
class Site:
    """A service with a page."""

    url: str
    token: str
    client: Client

    async def run(self, config: str, group: str = "/project/web/branch/main", **given: Any) -> Run:
        """Create the run of a configuration."""
        created = await self.client.runs.create_from_config(Inputs(config), group=group, **given)
        return created.runs[0]

    async def finished(self, config: str, group: str = "/project/web/branch/main", **given: Any) -> Run:
        """Create a run and wait for its end."""
        run = await self.run(config, group, **given)
        async with self.client.events.tail(run=run.id) as tail:
            async for commit in tail:
                if any(event.type == "RunFinished" for event in commit.events):
                    break
        return await self.client.runs.get(run.id, at_least=commit.position)


@pytest.fixture(scope="package")
async def site(nats_url: str, database_url: str) -> AsyncIterator[Site]:
    """The service of all tests of the page."""
    name = secrets.token_hex(6)
    with tempfile.TemporaryDirectory(prefix="runstream-page-") as folder:
        data = Path(folder) / "data"
        environment = {
            "RUNSTREAM_NATS_URL": nats_url,
            "RUNSTREAM_DATABASE_URL": database_url,
            "RUNSTREAM_NAMESPACE": f"page{name}",
            "RUNSTREAM_DATABASE_SCHEMA": f"page_{name}",
            "RUNSTREAM_PARTITIONS": "2",
        }
        try:
            async with serving(data, "--port", "0", **environment) as service:
                token = json.loads((data / "service.json").read_text())["token"]
                async with Client(service.url, token=token) as client:
                    yield Site(service.url, token, client)
        finally:
            await drop_schema(database_url, f"page_{name}")


@pytest.fixture(scope="package")
def chromium_path() -> str:
    """The path of the browser; without one the test is skipped."""
    pytest.importorskip("playwright", reason="playwright is not installed: `make setup` installs it")
    if (path := shutil.which("chromium")) is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    return path


@pytest.fixture(scope="package")
async def browser(chromium_path: str) -> AsyncIterator[Browser]:
    """A browser."""
    from tests.page.browser import chromium

    async with chromium(chromium_path) as browser:
        yield browser


@pytest.fixture(scope="package")
async def login(site: Site, browser: Browser) -> Any:
    """The cookies of the administrator's session."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{site.url}/ui/login#{site.token}")
    await page.wait_for_url(f"{site.url}/ui/")
    state = await context.storage_state()
    await context.close()
    return state


@asynccontextmanager
async def administrator(site: Site, browser: Browser, login: Any) -> AsyncIterator[BrowserContext]:
    """Open a browser context of the administrator, in English, in UTC; relative addresses are those of the page."""
    context = await browser.new_context(
        storage_state=login,
        base_url=site.url,
        locale="en-GB",
        timezone_id="UTC",
        viewport={"width": 1440, "height": 900},
    )
    context.set_default_timeout(WAIT_MS)
    yield context
    await context.close()


@pytest.fixture
async def context(site: Site, browser: Browser, login: Any) -> AsyncIterator[BrowserContext]:
    """The administrator's browser context."""
    async with administrator(site, browser, login) as context:
        yield context


@pytest.fixture
async def errors(context: BrowserContext) -> AsyncIterator[Errors]:
    """The errors of all pages of the test, checked at its end."""
    from tests.page.browser import watched

    found = await watched(context)
    yield found
    assert found.unexpected == []


@pytest.fixture
async def tab(context: BrowserContext, errors: Errors) -> Page:
    """A tab of the administrator: `await tab.goto("/ui/")`."""
    return await context.new_page()


async def try_now(page: Page) -> None:
    """Press "Try now", unless the page, which tries by itself too, has just come back."""
    await page.evaluate("[...document.querySelectorAll('button')].find(one => one.textContent == 'Try now')?.click()")
