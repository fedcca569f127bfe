"""Making a stream that may be there already."""

from __future__ import annotations

from collections.abc import Mapping

from nats.aio.client import Client

from runstream.errors import InternalError
from runstream.jetstream.api import STREAM_DIFFERS, ApiError, request

_CREATE_SECONDS = 15.0


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
