"""Logs of steps: as they are, or followed while they are written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from runstream.client.errors import ClientError
from runstream.client.streams import Stream
from runstream.client.wire import Wire

_OFFSET_HEADER = "Runstream-Log-Offset"


class Logs:
    """What tasks wrote."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def get(
        self, run_id: str, task_id: str, step: int | None, *, attempt: int | None = None, tail: int | None = None
    ) -> bytes:
        """The log of a step (None: of the setup) of an attempt (None: the last one) as it is now.

        With `tail` only its last lines (1 to 10,000), at most 1 MiB.

        Raises ClientError (not-exist: "log doesn't exist").
        """
        return b"".join([chunk async for chunk in self.read(run_id, task_id, step, attempt=attempt, tail=tail)])

    def read(
        self, run_id: str, task_id: str, step: int | None, *, attempt: int | None = None, tail: int | None = None
    ) -> Stream[bytes]:
        """The same, piece by piece."""
        params = _params(run_id, task_id, step, attempt)
        return self._wire.streams.stream(self._chunks(params, tail))

    def follow(
        self, run_id: str, task_id: str, step: int | None, *, attempt: int | None = None, tail: int | None = None
    ) -> Stream[bytes]:
        """The log of a step (None: of the setup) until it ends: from its beginning, or from its last lines of now.

        A response that breaks off is gone on with at the next byte. Raises ClientError.
        """
        params = _params(run_id, task_id, step, attempt) | {"follow": "1"}
        return self._wire.streams.stream(self._chunks(params, tail))

    async def _chunks(self, params: Mapping[str, str], tail: int | None) -> AsyncGenerator[bytes, None]:
        retries, offset, begun = self._wire.retries(), 0, False
        at = {} if tail is None else {"tail": str(tail)}
        while True:
            try:
                async with (
                    self._wire.stream("/logs", {**params, **at}, self._wire.own_writes(), silence=None) as answer,
                    aclosing(answer.aiter_bytes()) as chunks,
                ):
                    if not begun:
                        offset = int(answer.headers.get(_OFFSET_HEADER, "0"))
                    begun = True
                    async for chunk in chunks:
                        offset += len(chunk)
                        retries.progressed()
                        yield chunk
                return
            except ClientError as error:
                await retries.wait(error, begun=begun)
            if begun:
                at = {"offset": str(offset)}


def _params(run_id: str, task_id: str, step: int | None, attempt: int | None) -> dict[str, str]:
    params = {"runid": run_id, "taskid": task_id} | ({} if attempt is None else {"attempt": str(attempt)})
    return params | ({"setup": "1"} if step is None else {"step": str(step)})
