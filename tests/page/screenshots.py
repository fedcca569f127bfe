"""Pictures of the page for the documents: `python -m tests.page.screenshots` writes them to docs/images."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

from runstream.client import Client
from tests.page.browser import chromium
from tests.page.conftest import Site
from tests.service.running import serving

IMAGES = Path(__file__).parents[2] / "docs" / "images"
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


async def main() -> None:
    """Run a pipeline and take a picture of its page in each theme."""
    IMAGES.mkdir(exist_ok=True)
    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("there is no chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        async with serving(data, "--port", "0") as service, chromium(path) as browser:
            token = json.loads((data / "service.json").read_text())["token"]
            async with Client(service.url, token=token) as client:
                site = Site(service.url, token, client)
                run = await site.finished(PIPELINE, "/project/shop/branch/main")
            context = await browser.new_context(base_url=service.url, viewport={"width": 1280, "height": 640})
            tab = await context.new_page()
            await tab.goto(f"/ui/login#{token}")
            await tab.wait_for_url(f"{service.url}/ui/")
            for theme in ("light", "dark"):
                await tab.emulate_media(color_scheme="light" if theme == "light" else "dark")
                await tab.goto(f"/ui/runs/{run.id}")
                await tab.get_by_role("log").get_by_text("FAILED").wait_for()
                await tab.screenshot(path=IMAGES / f"run-{theme}.png")


if __name__ == "__main__":
    asyncio.run(main())
