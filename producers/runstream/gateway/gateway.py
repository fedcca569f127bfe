"""The gateway as a part of a process: its settings and what it works with go in, an HTTP server comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

from fastapi import APIRouter

from runstream.database import Database
from runstream.database.freshness import Freshness
from runstream.evaluation.reader import ConfigReader
from runstream.gateway.acting import Acting
from runstream.gateway.app import gateway_app
from runstream.gateway.creation import RunCreation
from runstream.gateway.explaining import Explaining
from runstream.gateway.gate import Admission, Gate
from runstream.gateway.parts import Parts
from runstream.gateway.ports import Asking, PastRuns, Sightings, Stored
from runstream.gateway.reading import DatabaseReads
from runstream.gateway.restarting import Restarting
from runstream.gateway.routes.why import in_maintenance
from runstream.lifecycle import Component
from runstream.log.port import Log
from runstream.maintenance import Mode, Parkable
from runstream.sealing import Keyring
from runstream.settings import Settings
from runstream.telemetry.connections import HttpLimits, connections_within
from runstream.telemetry.health import Check, Fact
from runstream.telemetry.process import Telemetry
from runstream.telemetry.serving import HttpServer


@dataclass(frozen=True, slots=True)
class Backends:
    """What is behind the gateway: where it writes, and whom it asks."""

    log: Log
    database: Database
    past: PastRuns
    stored: Stored
    questions: Asking
    sightings: Sightings | None = None


class Gateway(HttpServer):
    """Serves the API on `settings.host` and `settings.port`; `url` says where, once it is started.

    `checks` and `facts` are the process's own, shown on /readyz. Streams that are open end when it stops.
    """

    name = "gateway"

    def __init__(
        self,
        settings: Settings,
        behind: Backends,
        telemetry: Telemetry,
        checks: Mapping[str, Check] | None = None,
        *,
        keyring: Keyring | None = None,
        mode: Mode | None = None,
        routers: Sequence[APIRouter] = (),
        facts: Mapping[str, Fact] = MappingProxyType({}),
    ) -> None:
        """Without `keyring` it takes no secrets; without `mode` it is never in maintenance.

        `routers` are served beside its own routes.
        """
        stopping = asyncio.Event()
        log, keyring = behind.log, keyring or Keyring()
        self._freshness = Freshness(behind.database)
        configs = ConfigReader()
        reads = DatabaseReads(behind.database, self._freshness, log)
        parts = Parts(
            settings=settings,
            log=log,
            reads=reads,
            past=behind.past,
            step_logs=behind.stored.logs,
            creation=RunCreation(log, _now, behind.stored.shared, keyring),
            acting=Acting(log, _now),
            explaining=Explaining(log, behind.questions),
            restarting=Restarting(log, reads, configs),
            configs=configs,
            keyring=keyring,
            stopping=stopping,
            sightings=behind.sightings,
        )
        self._admission: Component | None = None
        gate = None
        if mode is not None:
            gate = Gate(mode.why, in_maintenance)
            self._admission = Parkable("gateway", mode, partial(_admission, gate))
        app = gateway_app(parts, telemetry, checks or {}, routers, gate, facts)
        limits = HttpLimits(connections=connections_within(settings.max_connections))
        super().__init__(app, settings.host, settings.port, limits=limits)
        self.stopping = stopping

    async def run(self) -> None:
        """Serve until `stopping` is set."""
        async with AsyncExitStack() as stack:
            for part in (self._freshness, self._admission):
                if part is not None:
                    stack.push_async_callback(part.stop)
                    await part.start()
            await super().run()


async def _admission(gate: Gate) -> Admission:
    return Admission(gate)


def _now() -> datetime:
    return datetime.now(UTC)
