"""The cleaner of a process, beside its datamanager."""

from __future__ import annotations

from datetime import UTC, datetime

from runstream.retention.cleaner import Cleaner
from runstream.service.platform import Platform


async def make_cleaner(platform: Platform) -> Cleaner:
    """Make a cleaner."""
    return Cleaner(platform.log, platform.objects, platform.pool(), lambda: datetime.now(UTC))
