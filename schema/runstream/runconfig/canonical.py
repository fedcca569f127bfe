"""The one text of a run config, by whose hash it is stored: equal content, equal hash."""

from __future__ import annotations

import orjson

from runstream.events.run_config import RunConfig
from runstream.ids import content_hash


def canonical(config: RunConfig) -> bytes:
    """The run config as JSON with sorted keys. Raises TypeError when it holds what is no Unicode text."""
    return orjson.dumps(config, option=orjson.OPT_SORT_KEYS)


def config_hash(config: RunConfig) -> str:
    """The id of the run config's aggregate: SHA-256 in hex of its canonical text."""
    return content_hash(canonical(config))
