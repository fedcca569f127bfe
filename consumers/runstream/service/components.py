"""Which components a process has, and what each of them is given."""

from __future__ import annotations

from dataclasses import dataclass

from runstream.lifecycle import Component
from runstream.service.data_dir import DataDir
from runstream.service.platform import Platform
from runstream.telemetry import HealthServer, HttpServer


@dataclass(frozen=True, slots=True)
class Parts:
    """The components of a process, in the order in which they start."""

    components: list[Component]
    web: HttpServer
    """The gateway, or what answers /healthz, /readyz and /metrics in a process without one."""
    gateway: bool
    """Whether `web` is the gateway."""


def build(platform: Platform, data_dir: DataDir) -> Parts:
    """The components that the settings name, not started yet."""
    settings = platform.settings
    health = HealthServer(platform.telemetry, platform.checks(), settings.host, settings.metrics_port)
    return Parts([health], health, gateway=False)
