"""The pages of projects, organizations and accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from runstream.client import Client
from tests.page.conftest import WAIT_MS, Site
from tests.page.test_keyboard import press

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page

MAX_STOPS = 12


@asynccontextmanager
async def tab_of(site: Site, browser: Browser, name: str, *expected: str) -> AsyncIterator[Page]:
    """Create a user and log in by a link; errors of the tab are failures, except for those expected."""
    from tests.page.browser import watched

    await site.client.users.create(name)
    context = await browser.new_context(base_url=site.url, timezone_id="UTC")
    context.set_default_timeout(WAIT_MS)
    errors = await watched(context)
    for pattern in expected:
        errors.expect(pattern)
    tab = await context.new_page()
    await tab.goto((await site.client.users.login_link(name)).url)
    await tab.wait_for_url(f"{site.url}/ui/")
    yield tab
    assert errors.unexpected == []
    await context.close()


async def fill(tab: Page, opener: str, submit: str, **fields: str) -> Locator:
    """Fill in the form that a button opens, by the labels of its fields, and send it: by keyboard alone."""
    await press(tab.get_by_role("button", name=opener))
    dialog = tab.get_by_role("dialog")
    await dialog.locator("input, select, textarea").first.and_(tab.locator(":focus")).wait_for()
    for label, value in fields.items():
        field = dialog.get_by_label(label.replace("_", " ")).first
        await tab_to(field)
        if await field.evaluate("one => one.localName") != "select":
            await tab.keyboard.type(value)
        elif await field.input_value() != value:
            # A choice goes to the next option that begins with the letter.
            await tab.keyboard.press(value[0])
    await tab_to(dialog.get_by_role("button", name=submit))
    await tab.keyboard.press("Enter")
    return dialog


async def tab_to(target: Locator) -> None:
    """Press Tab until an element of the dialog has the focus."""
    for _ in range(MAX_STOPS):
        if await target.evaluate("one => one === document.activeElement"):
            return
        await target.page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {target}")


async def test_a_private_project_is_made_with_its_secret_and_variable_and_an_outsider_does_not_see_it(
    site: Site, browser: Browser
) -> None:
    async with tab_of(site, browser, "pia") as tab:
        await tab.goto("/ui/p")
        await fill(tab, "New organization", "Create organization", Name="weavers", Visibility="private")
        await tab.wait_for_url(f"{site.url}/ui/g/org/weavers")
        await fill(tab, "New group", "Create group", Name="looms")
        await tab.wait_for_url(f"{site.url}/ui/g/org/weavers/looms")
        await fill(
            tab,
            "New project",
            "Create project",
            Name="shuttle",
            URL_of_the_repository="https://git.invalid/shuttle.git",
        )
        await tab.wait_for_url(f"{site.url}/ui/p/org/weavers/looms/shuttle")
        await tab.get_by_text("private", exact=True).wait_for()
        await tab.get_by_role("link", name="Secrets").click()
        await fill(tab, "New secret", "Create secret", Name="deploy", Keys_and_values="password=a=b c")
        await tab.get_by_role("button", name="New secret").and_(tab.locator(":focus")).wait_for()
        await tab.get_by_role("row").filter(has_text="deploy").get_by_text("here").wait_for()
        await tab.get_by_role("link", name="Variables").click()
        await fill(
            tab, "New variable", "Create variable", Name="PASSWORD", Values="deploy.password branch=main\nother.key"
        )
        row = tab.get_by_role("row").filter(has_text="PASSWORD")
        await row.get_by_text("for branch main").wait_for()
        await row.get_by_text("no such secret").wait_for()
        await tab.get_by_role("button", name="New variable").click()
        dialog = tab.get_by_role("dialog")
        await dialog.get_by_label("Name").fill("OTHER")
        await dialog.get_by_label("Values").fill("deploy.password branch")
        await dialog.get_by_role("button", name="Create variable").click()
        await dialog.get_by_role("alert").get_by_text("is no condition").wait_for()
        await tab.keyboard.press("Escape")
        await tab.get_by_role("link", name="Audit").click()
        await tab.get_by_role("row").filter(has_text="VariableCreated").get_by_text("pia").wait_for()
    async with tab_of(site, browser, "olaf", "status of 404") as tab:
        await tab.goto("/ui/p/org/weavers/looms/shuttle")
        await tab.get_by_role("alert").wait_for()
        await tab.goto("/ui/p")
        await tab.get_by_role("heading", name="Your organizations").wait_for()
        assert await tab.get_by_text("weavers").count() == 0


async def test_a_token_is_shown_once_works_and_is_revoked(site: Site, browser: Browser) -> None:
    async with tab_of(site, browser, "tove") as tab:
        await tab.goto("/ui/user")
        dialog = await fill(tab, "New token", "Create token", Name="laptop", Scope="read")
        done = dialog.get_by_role("button", name="Done")
        await done.and_(tab.locator(":focus")).wait_for()
        token = await dialog.locator("pre").inner_text()
        async with Client(site.url, token=token) as client:
            assert (await client.users.current()).username == "tove"
        await tab.keyboard.press("Enter")
        await tab.get_by_role("button", name="New token").and_(tab.locator(":focus")).wait_for()
        await tab.reload()
        row = tab.get_by_role("row").filter(has_text="laptop")
        await row.get_by_text("read").wait_for()
        assert token not in await tab.content()
        await press(row.get_by_role("button", name="Revoke"))
        await dialog.get_by_role("button", name="Revoke token").and_(tab.locator(":focus")).wait_for()
        await tab.keyboard.press("Enter")
        await tab.get_by_text("You have no tokens").wait_for()


async def test_a_project_is_deleted_after_its_name_is_typed(site: Site, browser: Browser) -> None:
    async with tab_of(site, browser, "dora") as tab:
        await tab.goto("/ui/g/user/dora")
        await fill(
            tab, "New project", "Create project", Name="gone", URL_of_the_repository="https://git.invalid/gone.git"
        )
        await tab.get_by_role("link", name="Settings").click()
        await press(tab.get_by_role("button", name="Delete project"))
        dialog = tab.get_by_role("dialog")
        await dialog.get_by_role("textbox").and_(tab.locator(":focus")).wait_for()
        assert await dialog.get_by_role("button", name="Delete project").is_disabled()
        await tab.keyboard.type("gone")
        await tab.keyboard.press("Enter")
        await tab.wait_for_url(f"{site.url}/ui/g/user/dora")
        await tab.get_by_text("There are no projects here yet").wait_for()


async def test_an_administrator_creates_users_and_gives_them_links(tab: Page, site: Site) -> None:
    await tab.goto("/ui/admin")
    await fill(tab, "New user", "Create user", Name="nils")
    await tab.get_by_role("row").filter(has_text="nils").get_by_role("button", name="Login link").click()
    dialog = tab.get_by_role("dialog")
    await dialog.get_by_role("button", name="Make link").click()
    assert "/ui/login#" in await dialog.locator("pre").inner_text()


async def test_a_name_that_leads_above_is_refused(site: Site, browser: Browser) -> None:
    async with tab_of(site, browser, "lo") as tab:
        await site.client.organizations.create("knots")
        await site.client.users.update("lo", admin=True)
        await tab.goto("/ui/orgs/knots")
        await tab.reload()
        dialog = await fill(tab, "Add member", "Add member", User="..")
        await dialog.get_by_role("alert").get_by_text("is no name").wait_for()
