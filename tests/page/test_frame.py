"""The frame of the page: login, logout, themes, keys, the palette, the first view."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from runstream.cli.page_command import leading_to
from runstream.client import Client, NewProject, NewRepository
from tests.page.conftest import Site
from tests.page.test_people import tab_of

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    from tests.page.browser import Errors

HELLO = """
runs:
  - name: hello
    tasks:
      - {name: one, runtime: {type: host}, steps: [{run: {name: greet, command: echo hello}}]}
"""


async def test_a_login_link_opens_the_page_that_it_names_once(site: Site, browser: Browser) -> None:
    from tests.page.browser import watched

    await site.client.users.create("lena")
    link = (await site.client.users.login_link("lena")).url
    context = await browser.new_context()
    errors = await watched(context)
    page = await context.new_page()
    await page.goto(link.replace("/login#", "/login?next=/ui/nowhere%3Fa%3Db#"))
    await page.wait_for_url(f"{site.url}/ui/nowhere?a=b")
    await page.get_by_role("button", name="Account: lena").click()
    await page.get_by_role("menuitem", name="Log out").click()
    await page.wait_for_url(re.compile("/ui/login"))
    assert await context.cookies() == []
    errors.expect("status of 401")
    await page.goto(link)
    await page.get_by_text("the login link or token is not valid").wait_for()
    assert "#" not in page.url
    assert errors.unexpected == []
    await context.close()


async def test_the_link_of_a_run_shows_it(site: Site, browser: Browser) -> None:
    run = await site.finished(HELLO, "/project/linked/branch/main")
    link = leading_to((await site.client.users.login_link("")).url, f"/ui/runs/{run.id}")
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(link)
    await page.wait_for_url(f"{site.url}/ui/runs/{run.id}")
    await page.get_by_role("button", name="Account: admin").wait_for()
    await context.close()


async def test_a_token_logs_in_and_a_session_that_ends_leads_back(tab: Page, site: Site, errors: Errors) -> None:
    await tab.context.clear_cookies()
    await tab.goto("/ui/events?x=1")
    await tab.wait_for_url(f"{site.url}/ui/login?next={quote('/ui/events?x=1', safe='')}")
    errors.expect("status of 401")
    await tab.get_by_label("Token").fill("wrong")
    await tab.get_by_role("button", name="Log in").click()
    await tab.get_by_role("alert").get_by_text("the login link or token is not valid").wait_for()
    await tab.get_by_label("Token").fill(site.token)
    await tab.get_by_label("Token").press("Enter")
    await tab.wait_for_url(f"{site.url}/ui/events?x=1")
    await tab.goto("/ui/")
    await tab.get_by_role("heading", name="Runs").wait_for()
    await tab.context.clear_cookies()
    # The next request of the page finds out.
    await site.run(HELLO, "/project/ended/branch/main")
    await tab.wait_for_url(f"{site.url}/ui/login")


async def test_a_link_leads_to_no_other_site(tab: Page, site: Site) -> None:
    for evil in (
        "https://evil.example/",
        "//evil.example/ui/",
        "javascript:alert(1)",
        "/api/v1alpha/runs",
        "/ui/login",
    ):
        await tab.goto("about:blank")
        await tab.context.clear_cookies()
        await tab.goto(f"/ui/login?next={quote(evil)}#{site.token}")
        await tab.wait_for_url(f"{site.url}/ui/")


async def test_the_first_view_takes_three_requests_before_its_data(tab: Page) -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.resource_type))
    await tab.goto("/ui/")
    await tab.get_by_role("heading", name="Runs").wait_for()
    # The icon of the tab is of type `other`; without one, a browser asks for /favicon.ico.
    assert sorted(one for one in asked if one not in ("fetch", "other")) == ["document", "script", "stylesheet"]


async def test_themes_and_zone_are_remembered(tab: Page) -> None:
    await tab.goto("/ui/")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    await tab.emulate_media(color_scheme="dark")
    dark = await tab.evaluate(background)
    await tab.get_by_role("button", name="Appearance").click()
    await tab.get_by_role("menuitemradio", name="Light theme").click()
    assert await tab.evaluate(background) != dark
    await tab.reload()
    await tab.get_by_role("button", name="Appearance").click()
    assert await tab.evaluate(background) != dark
    await tab.get_by_role("menuitemradio", name="Theme of the system").click()
    assert await tab.evaluate(background) == dark


async def test_the_list_shows_a_run_from_queued_to_success_without_a_reload(tab: Page, site: Site) -> None:
    await tab.goto("/ui/")
    await tab.get_by_role("heading", name="Runs").wait_for()
    await tab.evaluate("window.same = true")
    run = await site.run(HELLO, "/project/live/branch/main")
    row = tab.get_by_role("row").filter(has=tab.locator(f'a[href="/ui/runs/{run.id}"]'))
    await row.get_by_text("Success").wait_for()
    assert await tab.evaluate("window.same")


async def test_keys_open_help_and_palette_and_lead_to_places(tab: Page, site: Site) -> None:
    run = await site.finished(HELLO, "/project/keys/branch/main")
    await tab.goto("/ui/")
    await tab.get_by_role("heading", name="Runs").wait_for()
    await tab.keyboard.press("?")
    await tab.get_by_role("dialog", name="Keys").get_by_text("Find a run or a page").wait_for()
    await tab.keyboard.press("Escape")
    await tab.get_by_role("dialog").wait_for(state="detached")
    await tab.keyboard.press("Control+k")
    await tab.get_by_role("combobox").fill("/project/keys/")
    await tab.get_by_role("option", name="hello /project/keys/branch/main #1").wait_for()
    await tab.keyboard.press("Enter")
    await tab.wait_for_url(f"{site.url}/ui/runs/{run.id}")
    await tab.keyboard.press("Control+k")
    await tab.get_by_role("combobox").fill(f"#{run.counter}")
    await tab.get_by_role("option", name=f"hello /project/keys/branch/main #{run.counter}").wait_for()
    for text in (run.id[:8], f"/project/keys/{run.counter}", f"/project/keys/branch/main #{run.counter}"):
        await tab.get_by_role("combobox").fill(text)
        await tab.locator("[role=option]:only-child").wait_for()
        await tab.get_by_role("option", name=f"hello /project/keys/branch/main #{run.counter}").wait_for()
    await tab.keyboard.press("Escape")
    await tab.keyboard.press("g")
    await tab.keyboard.press("r")
    await tab.wait_for_url(f"{site.url}/ui/")


async def test_the_palette_finds_projects_and_groups_by_a_part_of_their_path(site: Site, browser: Browser) -> None:
    async with tab_of(site, browser, "pot") as tab:
        token = await site.client.users.create_token("pot", "wheel")
        async with Client(site.url, token=token) as client:
            await client.organizations.create("potters")
            await client.project_groups.create("kilns", "org/potters")
            repository = NewRepository(url="https://git.invalid/glaze.git")
            project = NewProject(
                name="glaze", parent_ref="org/potters/kilns", visibility="private", repository=repository
            )
            await client.projects.create(project)
        await tab.keyboard.press("Control+k")
        await tab.get_by_role("combobox").fill("ilns")
        await tab.get_by_role("option", name="org/potters/kilns group").wait_for()
        await tab.get_by_role("option", name="org/potters/kilns/glaze project").wait_for()
        await tab.keyboard.press("Enter")
        await tab.wait_for_url(f"{site.url}/ui/p/org/potters/kilns/glaze")
