"""The one text of a run config, by whose hash it is stored: equal content, equal hash."""

from __future__ import annotations

from runstream.events.run_config import RunConfig

# What stores and hashes is imported where it is used: who only checks a file waits for neither.


def canonical(config: RunConfig) -> bytes:
    """The run config as JSON with sorted keys. Raises TypeError when it holds what is no Unicode text."""
    import orjson
    from msgspec.structs import asdict

    return orjson.dumps(config, default=asdict, option=orjson.OPT_SORT_KEYS)


def config_hash(config: RunConfig) -> str:
    """The id of the run config's aggregate: SHA-256 in hex of its canonical text."""
    from runstream.ids import content_hash

    return content_hash(canonical(config))
