"""Gossip between scheduler processes: each broadcasts its pending tasks, so that all agree on who gets a slot.

    silent --a task is pending here or at a peer--> broadcasting
    broadcasting --no task is pending anywhere--> silent, after a last message that withdraws the report

While it broadcasts, a process repeats its whole report after each change, and every second. That makes good for a lost
message, and a dead process is forgotten: with its place in the membership, or after `VALID_SECONDS` of silence.
Changes are gathered for several times as long as a broadcast takes, so that a busy process spends at most a tenth of
its time on gossip. A process without peers sends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

import msgspec
import structlog

from runstream.jetstream.messaging import Notices
from runstream.lifecycle import wait_for_event
from runstream.scheduler.fair_queue import FairQueue
from runstream.scheduler.peers import PeerReport

logger = structlog.get_logger(__name__)

REPEAT_SECONDS = 1.0
VALID_SECONDS = 3.0
GATHER_SECONDS = 0.002
"""Minimum time between two reports."""
GATHER_TIMES = 9
"""Pause after a report, as a multiple of the time that it took: gossip takes at most a tenth of the time."""
RULE = 1
"""The version of the order of pending tasks; processes that order them differently ignore each other's reports."""


class Gossip:
    """The sender of this process's report, and receiver of its peers'."""

    def __init__(self, queue: FairQueue, notices: Notices, subject: str, process: str) -> None:
        """`subject` is shared by all schedulers of the service; `process` is this one's id."""
        self._queue = queue
        self._notices = notices
        self._subject = subject
        self._process = process
        self._peers: frozenset[str] = frozenset()
        self._received: dict[str, PeerReport | None] = {}
        self._valid_until: dict[str, float] = {}
        self._broadcasting = False
        self._woken = asyncio.Event()
        queue.on_change = self._changed

    def members(self, processes: Collection[str]) -> None:
        """Set the ids of the live schedulers, this one included."""
        for process in self._peers.difference(processes):
            self._received[process] = None
        self._peers = frozenset(processes) - {self._process}
        self._woken.set()

    async def run(self) -> None:
        """Send and receive until cancelled; withdraw the report at the end."""
        loop = asyncio.get_running_loop()
        async with self._notices.receiving(self._subject, self._receive):
            try:
                while True:
                    repeat = self._broadcasting or self._queue.capacity.peers.known
                    await wait_for_event(self._woken, REPEAT_SECONDS if repeat else None)
                    begun = loop.time()
                    message = self._next_message(begun)
                    busy = loop.time() - begun
                    if message:
                        await self._notices.tell(self._subject, message)
                    await asyncio.sleep(GATHER_SECONDS + GATHER_TIMES * busy)
            finally:
                if self._broadcasting:
                    await self._notices.tell(self._subject, encode(self._process, None))

    def _next_message(self, now: float) -> bytes:
        """Apply what was received, reassign slots, and return the message to send, if any."""
        self._woken.clear()
        received, self._received = self._received, {}
        self._valid_until.update(dict.fromkeys(received, now + VALID_SECONDS))
        silent = [process for process, until in self._valid_until.items() if until <= now]
        for process, report in (received | dict.fromkeys(silent)).items():
            self._queue.receive(process, report)
            if report is None:
                del self._valid_until[process]
        self._queue.reassign()
        before = self._broadcasting
        self._broadcasting = bool(self._peers and (self._queue.waiting or self._queue.capacity.peers.claims))
        if self._broadcasting:
            return encode(self._process, self._queue.report())
        return encode(self._process, None) if before else b""

    def _changed(self) -> None:
        if self._peers and (self._broadcasting or self._queue.waiting):
            self._woken.set()

    def _receive(self, data: bytes) -> None:
        try:
            process, report = decode(data)
        except msgspec.DecodeError as error:
            logger.debug("A peer's report cannot be read", action="notice_unreadable", error=str(error))
            return
        if process != self._process:
            self._received[process] = report
            self._woken.set()


@dataclass(frozen=True, slots=True)
class _GossipMessage:
    rule: int
    process: str
    notice: PeerReport | None


def encode(process: str, report: PeerReport | None) -> bytes:
    """Return the message that carries the report, or that withdraws it."""
    return msgspec.json.encode(_GossipMessage(RULE, process, report))


def decode(data: bytes) -> tuple[str, PeerReport | None]:
    """Return the sender and its report; None for one that uses another rule. Raises msgspec.DecodeError."""
    message = msgspec.json.decode(data, type=_GossipMessage)
    return message.process, message.notice if message.rule == RULE else None
