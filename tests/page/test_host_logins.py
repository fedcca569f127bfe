"""A browser links an account at a git host, and logs in with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.client.config_types import NewRemoteSource
from tests.hosts.fake import serving
from tests.hosts.gitea import FakeGitea
from tests.page.conftest import Site
from tests.page.test_people import tab_of

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser


async def test_a_user_links_an_account_and_logs_in_through_the_host(
    site: Site, browser: Browser, tmp_path: Path
) -> None:
    fake = FakeGitea(tmp_path)
    fake.add_user("octa")
    with serving(fake):
        # Another site than the page's: cookies of the session are not sent with what comes from it.
        url = fake.url.replace("127.0.0.1", "localhost")
        source = NewRemoteSource(
            name="forge",
            type="gitea",
            auth_type="oauth2",
            apiurl=url,
            oauth_2_client_id="client",
            oauth_2_client_secret="client-secret",
        )
        await site.client.remote_sources.create(source)
        try:
            async with tab_of(site, browser, "lotte") as tab:
                await tab.goto("/ui/user?tab=hosts")
                await tab.get_by_role("row", name="forge").get_by_role("button", name="Link").click()
                await tab.wait_for_url(f"{site.url}/ui/user?tab=hosts")
                await tab.get_by_role("cell", name="octa").wait_for()
                await tab.get_by_role("button", name="Account: lotte").click()
                await tab.get_by_role("menuitem", name="Log out").click()
                await tab.get_by_role("button", name="Log in with forge").click()
                await tab.wait_for_url(f"{site.url}/ui/")
                await tab.get_by_role("button", name="Account: lotte").wait_for()
                await tab.goto("/ui/user?tab=hosts")
                await tab.get_by_role("button", name="Unlink…").click()
                await tab.get_by_role("dialog").get_by_role("button", name="Unlink").click()
                await tab.get_by_role("row", name="forge").get_by_role("button", name="Link").wait_for()
        finally:
            await site.client.users.delete("lotte")
            await site.client.remote_sources.delete("forge")
