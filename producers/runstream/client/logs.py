"""Logs of steps: as they are, or followed while they are written."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from runstream.client.errors import ClientError
from runstream.client.streams import Stream
from runstream.client.wire import Wire


class Logs:
    """What tasks wrote."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def get(self, run_id: str, task_id: str, step: int | None, *, attempt: int | None = None) -> bytes:
        """The log of a step (None: of the setup) of an attempt (None: the last one) as it is now.

        Raises ClientError (not-exist: "log doesn't exist").
        """
        return b"".join([chunk async for chunk in self.read(run_id, task_id, step, attempt=attempt)])

    def read(self, run_id: str, task_id: str, step: int | None, *, attempt: int | None = None) -> Stream[bytes]:
        """The same, piece by piece."""
        return self._wire.streams.stream(self._chunks(run_id, task_id, step, attempt, follow=False))

    def follow(self, run_id: str, task_id: str, step: int | None, *, attempt: int | None = None) -> Stream[bytes]:
        """The log of a step (None: of the setup) from its beginning, until it ends.

        A response that breaks off is gone on with at the next byte. Raises ClientError.
        """
        return self._wire.streams.stream(self._chunks(run_id, task_id, step, attempt, follow=True))

    async def _chunks(
        self, run_id: str, task_id: str, step: int | None, attempt: int | None, *, follow: bool
    ) -> AsyncGenerator[bytes, None]:
        params = {"runid": run_id, "taskid": task_id} | ({} if attempt is None else {"attempt": str(attempt)})
        params |= {"setup": "1"} if step is None else {"step": str(step)}
        if follow:
            params["follow"] = "1"
        retries, offset, begun = self._wire.retries(), 0, False
        while True:
            try:
                at = {"offset": str(offset)} if offset else {}
                async with (
                    self._wire.stream("/logs", params | at, self._wire.own_writes(), silence=None) as answer,
                    aclosing(answer.aiter_bytes()) as chunks,
                ):
                    begun = True
                    async for chunk in chunks:
                        offset += len(chunk)
                        retries.progressed()
                        yield chunk
                return
            except ClientError as error:
                await retries.wait(error, begun=begun)
