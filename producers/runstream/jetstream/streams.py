"""Making a stream, or the one of a KV bucket, that may be there already."""

from __future__ import annotations

from collections.abc import Mapping

from nats.aio.client import Client

from runstream.errors import InternalError
from runstream.jetstream.api import STREAM_DIFFERS, ApiError, request

_CREATE_SECONDS = 15.0


def bucket_config(bucket: str, replicas: int) -> dict[str, object]:
    """The stream of a KV bucket: of each key the last value alone, on disk."""
    return {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "storage": "file",
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "discard": "new",
        "deny_delete": True,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }


async def ensure_stream(nc: Client, config: Mapping[str, object]) -> None:
    """Make the stream, or find it as it is asked for; its number of replicas may be another.

    Raises InternalError when it is there with settings that do not serve, or the server is too old for them.
    """
    name = str(config["name"])
    try:
        found = (await request(nc, f"STREAM.CREATE.{name}", config, seconds=_CREATE_SECONDS))["config"]
    except ApiError as error:
        if error.number != STREAM_DIFFERS:
            raise
        found = (await request(nc, f"STREAM.INFO.{name}"))["config"]
    wrong = [key for key, value in config.items() if key != "num_replicas" and found.get(key) != value]
    if wrong:
        raise InternalError(
            f"stream {name} on NATS has other settings than Runstream needs: {', '.join(sorted(wrong))}",
            code="weakStream",
            hint="Runstream needs nats-server 2.14 or later, and its streams left as they are; ask `runstream doctor`",
        )
