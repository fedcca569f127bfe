"""The settings of retention as policies: the one of all group roots, and those of single ones.

retention:
  runs: {keep: 100, age: 90d}
  logs: 30d
  groups: {/project/deploys: "runs.keep=10 logs=365d"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from runstream.domain.retention import Policy
from runstream.runconfig.amounts import parse_duration, parse_quantity
from runstream.settings import RetentionSettings
from runstream.subjects import group_root

_DAYS = re.compile(r"([0-9]{1,6})d")
_FIELDS = {"runs.keep": "keep", "runs.age": "runs", "logs": "logs", "archives": "archives"}
"""The field of a policy for each of these settings."""
MAX_KEEP = 1_000_000
NEVER = "never"
"""The age of what is not removed by its age."""


def parse_age(text: str) -> timedelta | None:
    """Return an age such as `90d` or `36h`; None for `never` or an empty text. Raise ValueError, with a sentence."""
    if text in ("", NEVER):
        return None
    days = _DAYS.fullmatch(text)
    try:
        age = timedelta(days=int(days[1])) if days else timedelta(microseconds=parse_duration(text) / 1000)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is not an age such as 90d or 36h, and not {NEVER}") from error
    if age <= timedelta(0):
        raise ValueError(f"an age is more than 0 (got {text[:40]!r}); write {NEVER} to keep everything")
    return age


def parse_size(text: str) -> int | None:
    """Return a size such as `10GiB` in bytes; None for an empty text. Raise ValueError, with a sentence."""
    try:
        return parse_quantity(text.removesuffix("B")) if text else None
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is not a size such as 10GiB or 500MB") from error


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy of each group root."""

    default: Policy = field(default_factory=Policy)
    of_roots: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, root: str) -> Policy:
        """Return the policy of a group root."""
        return self.of_roots.get(root, self.default)

    def __bool__(self) -> bool:
        return bool(self.default) or any(self.of_roots.values())


def policies_of(settings: RetentionSettings) -> Policies:
    """Return the policies of the settings. Raise ValueError, with a sentence, for a wrong value."""
    default = Policy(
        settings.runs.keep or None,
        parse_age(settings.runs.age),
        parse_age(settings.logs),
        parse_age(settings.archives),
    )
    return Policies(default, {root: _changed(default, root, text) for root, text in settings.groups.items()})


def _changed(default: Policy, root: str, text: str) -> Policy:
    """Return the policy of a group root, whose text has what differs from the default."""
    if group_root(root) != root:
        raise ValueError(f"{root[:80]!r} is not a project or user, such as /project/web")
    changes: dict[str, Any] = {}
    for part in text.split():
        name, _, value = part.partition("=")
        if name not in _FIELDS:
            raise ValueError(f"{root}: {part[:40]!r} is none of {', '.join(f'{one}=…' for one in _FIELDS)}")
        changes[_FIELDS[name]] = _keep(value) if name == "runs.keep" else parse_age(value)
    return replace(default, **changes)


def _keep(text: str) -> int | None:
    if text in ("", "all"):
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_KEEP:
        raise ValueError(f"runs.keep is a number from 1 to {MAX_KEEP}, or all (got {text[:40]!r})")
    return int(text)
