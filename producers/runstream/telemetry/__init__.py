"""Telemetry of a process: logs, one trace for each run, metrics, health.

    telemetry = setup_telemetry(settings, "scheduler")      once in a process that serves, before anything else
    with span_from(commit.trace, "decide", {"run": run_id}):
        ...  current_traceparent() is what the next message carries
    APPENDED_COMMITS.add(3, "0")
    await telemetry.shutdown()

The large parts, which only serving processes need, are imported from their modules: `process` (metrics and traces),
`health` and `http_server`.
"""

from runstream.telemetry.logs import hide_secret, setup_logging
from runstream.telemetry.tracing import Span, current_traceparent, span_from

__all__ = ["Span", "current_traceparent", "hide_secret", "setup_logging", "span_from"]
