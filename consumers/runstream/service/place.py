"""Where the service of a process is, for what works on a whole service: imports, epochs, what killed ones have left."""

from __future__ import annotations

from runstream.importing.epochs import ServicePlace
from runstream.service.maintained import SERVICE
from runstream.service.platform import Platform


def service_place(platform: Platform) -> ServicePlace:
    """Raises InternalError in a process without database."""
    settings = platform.settings
    return ServicePlace(
        platform.nats, settings.nats_url, platform.pool(), settings.namespace, SERVICE, settings.replicas
    )
