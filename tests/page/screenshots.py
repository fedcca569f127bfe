"""Pictures of the page for the documents: `python -m tests.page.screenshots` writes them to docs/images."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from runstream.client import Client, NewProject, NewRepository, Source
from tests.page.browser import chromium
from tests.page.conftest import Site
from tests.service.running import serving

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

IMAGES = Path(__file__).parents[2] / "docs" / "images"
GROUP = "/project/shop/branch/main"
PIPELINE = r"""
runs:
  - name: build and test
    tasks:
      - {name: install, runtime: {type: host}, steps: [{run: sleep 0.4; echo installed}]}
      - {name: lint, depends: [install], runtime: {type: host}, steps: [{run: sleep 0.3; echo fine}]}
      - {name: types, depends: [install], runtime: {type: host}, steps: [{run: sleep 0.5; echo fine}]}
      - name: unit tests
        depends: [install]
        runtime: {type: host}
        steps:
          - run: sleep 0.2
          - run:
              name: pytest
              command: |
                printf 'collected 214 items\n\ntests/test_api.py \033[32m.......\033[0m\n'
                printf 'tests/test_pay.py \033[32m...\033[31mF\033[0m\n\n'
                printf '\033[31mFAILED\033[0m tests/test_pay.py::test_it_rounds_up - assert 1.01 == 1.00\n'
                exit 1
      - {name: wheel, depends: [lint, types], runtime: {type: host}, steps: [{run: sleep 0.2; echo built}]}
      - {name: publish, depends: [wheel, unit tests], runtime: {type: host}, steps: [{run: echo published}]}
"""
RELEASE = """
runs:
  - name: release
    tasks:
      - {name: build, runtime: {type: host}, steps: [{run: echo built}]}
      - {name: deploy, depends: [build], approval: true, runtime: {type: host}, steps: [{run: echo deployed}]}
"""
FLAKY = """
runs:
  - name: nightly
    tasks:
      - name: browser tests
        runtime: {type: host}
        retry: {max: 1, backoff: 1s}
        steps: [{run: 'test "$RUNSTREAM_TASK_ATTEMPT" = 2'}]
"""
SHOTS = {
    "runs": "/",
    "run": "/runs/{run}?view=graph",
    "run-timeline": "/runs/{run}?view=timeline",
    "run-table": "/runs/{run}?view=table",
    "run-log": "/runs/{run}/log/unit%20tests/1",
    "run-events": "/runs/{run}/events",
    "run-diff": "/runs/{run}/diff",
    "run-restart": "/runs/{run}/restart",
    "group": f"/groups/{quote(GROUP, safe='')}",
    "flaky": "/flaky",
    "events": "/events",
    "projects": "/p",
    "project": "/p/org/shop/web",
    "organization": "/orgs/shop",
    "account": "/user",
    "admin": "/admin",
    "executors": "/executors",
    "health": "/ops/health",
    "maintenance": "/ops/maintenance",
    "snapshots": "/ops/snapshots",
    "parked": "/ops/parked",
    "check": "/ops/fsck",
    "storage": "/ops/storage",
    "login": "/login",
}
"""Each page, by the name of its picture."""


async def prepared(site: Site) -> dict[str, str]:
    """Make what the pictures show; return the id of a failed run, and a link that logs in."""
    client = site.client
    await client.users.create("ann")
    await client.users.update("ann", admin=True)
    token = await client.users.create_token("ann", "laptop")
    repository = NewRepository(url="https://git.example.com/shop/web.git")
    project = NewProject(name="web", parent_ref="org/shop", visibility="private", repository=repository)
    async with Client(site.url, token=token) as ann:
        await ann.organizations.create("shop")
        await ann.projects.create(project)
    source = Source(branch="main", commit_sha="4f2a9c81d0e7" + "3" * 28, message="Round prices at the end")
    passing = PIPELINE.replace("exit 1", "exit 0")
    await site.finished(passing, GROUP, source=Source(branch="main", commit_sha="b7c1" * 10, message="Add prices"))
    await site.finished(FLAKY, "/project/shop/branch/nightly", source=source)
    await site.run(RELEASE, "/project/shop/tag/v1.2")
    run = await site.finished(PIPELINE, GROUP, source=source)
    return {"run": run.id, "link": (await client.users.login_link("ann")).url}


async def take(browser: Browser, url: str, made: dict[str, str], folder: Path, width: int) -> None:
    """Take the picture of each page in each theme, in a window of this width."""
    context = await browser.new_context(base_url=url, timezone_id="UTC", viewport={"width": width, "height": 720})
    tab = await context.new_page()
    devtools = await context.new_cdp_session(tab)
    await tab.goto(made["link"])
    await tab.wait_for_url(f"{url}/ui/")
    for name, path in SHOTS.items():
        if name == "login":
            await tab.context.clear_cookies()
        await tab.goto(f"/ui{path.format(run=made['run'])}")
        await ready(tab, name)
        for theme in ("light", "dark"):
            await tab.emulate_media(color_scheme=theme, reduced_motion="reduce")
            # WebP takes a third of PNG; Playwright itself takes none.
            taken = await devtools.send("Page.captureScreenshot", {"format": "webp", "quality": 80})
            await asyncio.to_thread((folder / f"{name}-{theme}.webp").write_bytes, base64.b64decode(taken["data"]))
    await context.close()


async def ready(tab: Page, name: str) -> None:
    """Wait for what a page shows at last."""
    await tab.locator("h1").first.wait_for()
    if name in ("run", "run-timeline", "run-table", "run-log"):
        await tab.get_by_role("log").get_by_text("FAILED").wait_for()
    await tab.locator(".skeleton").first.wait_for(state="detached")
    if name == "run-events":
        await tab.locator(".commit").first.wait_for()


async def main(folder: Path = IMAGES, width: int = 1100) -> None:
    """Run pipelines and take a picture of every page in each theme."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240, nothing else runs yet
    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("there is no chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as data_folder:
        data = Path(data_folder) / "data"
        async with serving(data, "--port", "0") as service, chromium(path) as browser:
            token = json.loads((data / "service.json").read_text())["token"]
            async with Client(service.url, token=token) as client:
                made = await prepared(Site(service.url, token, client))
            await take(browser, service.url, made, folder, width)


if __name__ == "__main__":
    # Another folder and width, for those who look: `python -m tests.page.screenshots /tmp/narrow 390`.
    given = sys.argv[1:]
    asyncio.run(main(Path(given[0]), int(given[1])) if given else main())
