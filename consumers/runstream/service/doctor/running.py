"""Whether a service is running in the data directory."""

from __future__ import annotations

from runstream.service.data_dir import holder
from runstream.service.doctor.finding import Finding
from runstream.settings import Settings


def running_service(settings: Settings) -> Finding:
    """Return whether a process holds the data directory, and which."""
    pid = holder(settings.data_dir)
    if pid is not None:
        return Finding("service", "ok", f"running in {settings.data_dir} (process {pid})")
    return Finding("service", "warning", f"not running in {settings.data_dir}", "start it with `runstream serve`")
