"""The cleaner of a process, beside its datamanager."""

from __future__ import annotations

from datetime import UTC, datetime

from runstream.policies import parse_age, parse_size
from runstream.retention.caches import CachePolicy
from runstream.retention.cleaner import Cleaner
from runstream.service.platform import Platform


async def make_cleaner(platform: Platform) -> Cleaner:
    """Make a cleaner."""
    kept = platform.settings.retention.caches
    caches = CachePolicy(parse_age(kept.age), parse_size(kept.size))
    return Cleaner(platform.log, platform.objects, platform.pool(), lambda: datetime.now(UTC), caches)
