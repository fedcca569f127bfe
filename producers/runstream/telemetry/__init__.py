"""What a process says about itself: logs, one trace for each run, metrics, health.

telemetry = setup_telemetry(settings, "scheduler")      once in a process, before anything else
with span_from(commit.trace, "decide", {"run": run_id}):
    ...  current_traceparent() is what the next message carries
APPENDED_COMMITS.add(3, "0")
await telemetry.shutdown()
"""

from runstream.telemetry.health import Check, HealthServer, health_app, health_routes
from runstream.telemetry.logs import setup_logging
from runstream.telemetry.process import Telemetry, setup_telemetry
from runstream.telemetry.secrets import hide_secret
from runstream.telemetry.serving import HttpServer
from runstream.telemetry.tracing import Span, current_traceparent, span_from

__all__ = [
    "Check",
    "HealthServer",
    "HttpServer",
    "Span",
    "Telemetry",
    "current_traceparent",
    "health_app",
    "health_routes",
    "hide_secret",
    "setup_logging",
    "setup_telemetry",
    "span_from",
]
