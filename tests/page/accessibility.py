"""What axe finds in a page, in both themes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from playwright.async_api import Page


async def violations(page: Page) -> list[str]:
    """Return what axe finds, in the light theme and in the dark one; axe does not see the edge of transitions."""
    found: list[str] = []
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        result = await Axe().run(page)
        found += [
            f"{theme}: {violation['id']}: {node['failureSummary']}: {node['html'][:200]}"
            for violation in result.response["violations"]
            for node in violation["nodes"]
        ]
    return found
