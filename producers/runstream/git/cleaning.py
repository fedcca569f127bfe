"""The clean-up of a gateway's git repositories: refs that users pushed expire, and mirrors go when they are not used.

The repositories are files of the gateway, so it cleans them itself, beside the cleaner of the object storage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from runstream.git.mirrors import Mirrors
from runstream.git.server import GitServer
from runstream.lifecycle import BackgroundTasks, Component, keep_running

INTERVAL_SECONDS = 3600.0
log = structlog.get_logger()


class RepositoryCleaning(Component):
    """The component that cleans repositories, at its start and then every hour."""

    name = "cleaning of repositories"

    def __init__(
        self,
        mirrors: Mirrors,
        server: GitServer,
        expiry: timedelta | None,
        clock: Callable[[], datetime],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        """`expiry` is the age of a commit at which its ref is deleted; None keeps all refs."""
        super().__init__()
        self._mirrors = mirrors
        self._server = server
        self._expiry = expiry
        self._clock = clock
        self._interval_seconds = interval_seconds

    async def run(self) -> None:
        """Clean until `stopping` is set."""
        async with BackgroundTasks() as background:
            background.keep(keep_running(self.name, self._clean_again))
            self.started.set()
            await self.stopping.wait()

    async def _clean_again(self) -> None:
        while True:
            await self.clean()
            await asyncio.sleep(self._interval_seconds)

    async def clean(self) -> None:
        """Delete what has expired, and log what that was."""
        now = self._clock()
        mirrors = await self._mirrors.clean(now)
        if self._expiry is None:
            refs = repositories = 0
        else:
            cleaned = await self._server.clean(now, self._expiry)
            refs, repositories = cleaned.refs, cleaned.repositories
        if mirrors or refs or repositories:
            log.info(
                "git repositories are cleaned",
                action="repositories_cleaned",
                mirrors=mirrors,
                refs=refs,
                repositories=repositories,
            )
