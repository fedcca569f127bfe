"""Telemetry of one process: set up once, shut down in a bounded time.

Metrics are always available on /metrics (from a registry of our own, never the library's global one). Traces and
metrics are sent over OTLP/HTTP only when an endpoint is configured; without one there is no exporter and no thread,
and spans are not recorded.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from prometheus_client import CollectorRegistry, generate_latest

from runstream.lifecycle import wait_for_event
from runstream.release import version
from runstream.settings import Settings
from runstream.telemetry import metrics
from runstream.telemetry.logs import hide_password_of, hide_secret, setup_logging
from runstream.telemetry.metrics import register_all
from runstream.telemetry.tracing import record_with

_EXPORT_SECONDS = 5.0
_SHUTDOWN_SECONDS = 3.0


class Telemetry:
    """The telemetry of a process: its metrics, and its shutdown."""

    def __init__(self, component: str, registry: CollectorRegistry, providers: list[Callable[[], None]]) -> None:
        self.component = component
        self._registry = registry
        self._shutdowns = providers

    def prometheus(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    async def shutdown(self, seconds: float = _SHUTDOWN_SECONDS) -> bool:
        """Send what is left, for at most `seconds`; return True when all was sent. A second call does nothing."""
        shutdowns, self._shutdowns = self._shutdowns, []
        if not shutdowns:
            return True
        record_with(None)
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def work() -> None:
            for shut in shutdowns:
                shut()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        # A daemon thread: an endpoint that does not answer must not keep the process from ending.
        threading.Thread(target=work, name="telemetry-shutdown", daemon=True).start()
        return await wait_for_event(done, seconds)


def setup_telemetry(settings: Settings, component: str) -> Telemetry:
    """Set up logs, metrics and traces of this process; `component` names it in traces, such as `gateway`."""
    setup_logging(settings.log_level, settings.log_format)
    hide_secret(settings.token)
    for url in (settings.nats_url, settings.database_url, settings.otlp_endpoint):
        hide_password_of(url)
    resource = Resource.create(
        {
            "service.name": f"runstream-{component}",
            "service.namespace": settings.namespace,
            "service.version": version(),
        }
    )
    registry = CollectorRegistry()
    endpoint = settings.otlp_endpoint.rstrip("/")
    meters = _meter_provider(resource, registry, endpoint)
    register_all(meters.get_meter(metrics.__name__))
    shutdowns: list[Callable[[], None]] = [meters.shutdown]
    record_with(None)
    if endpoint:
        tracers = _tracer_provider(resource, endpoint)
        record_with(tracers.get_tracer("runstream"))
        shutdowns.insert(0, tracers.shutdown)
    return Telemetry(component, registry, shutdowns)


def _meter_provider(resource: Resource, registry: CollectorRegistry, endpoint: str) -> MeterProvider:
    readers: list[MetricReader] = [PrometheusMetricReader(registry=registry, scope_info_enabled=False)]
    if endpoint:
        # Imported on demand: most processes need neither its import time nor its memory.
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        exporter = OTLPMetricExporter(endpoint=f"{endpoint}/v1/metrics", timeout=_EXPORT_SECONDS)
        readers.append(PeriodicExportingMetricReader(exporter, export_timeout_millis=_EXPORT_SECONDS * 1000))
    return MeterProvider(readers, resource, shutdown_on_exit=False)


def _tracer_provider(resource: Resource, endpoint: str) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
