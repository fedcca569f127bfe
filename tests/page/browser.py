"""A browser, one for all tests of the page, and what each test has of it: a context whose every error is a failure."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

_DISABLED_FEATURES = (
    # Chromium loads two pages of its own for the address bar of each window, which is half of all its CPU, and keeps a
    # renderer in reserve.
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    "SpareRendererForSitePerProcess",
    # Playwright disables these; the last --disable-features is the one that counts.
    "AimEnabled",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
)
_ARGUMENTS = ("--no-sandbox", f"--disable-features={','.join(_DISABLED_FEATURES)}")
_NOTE_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => console.error(
  `CSP violation: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


@asynccontextmanager
async def chromium(path: str) -> AsyncIterator[Browser]:
    """Run Debian's Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Errors:
    """What went wrong in the pages of a test."""

    found: list[str] = field(default_factory=list)
    _expected: list[re.Pattern[str]] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """Allow the errors of this test that match, such as `status of 503`."""
        self._expected.append(re.compile(pattern))

    @property
    def unexpected(self) -> list[str]:
        """The errors that no pattern allows."""
        return [one for one in self.found if not any(pattern.search(one) for pattern in self._expected)]

    def watch(self, page: Page) -> None:
        """Note errors of a page."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(f"page error: {error}\n{error.stack}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")


async def watched(context: BrowserContext) -> Errors:
    """Note the errors of all pages of a context."""
    errors = Errors()
    context.on("page", errors.watch)
    await context.add_init_script(_NOTE_VIOLATIONS)
    return errors
