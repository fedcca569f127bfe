"""The projector of the config service in a process."""

from __future__ import annotations

from runstream.configstore.component import ConfigStoreComponent
from runstream.jetstream.messaging import Questions
from runstream.maintenance.instances import ThisInstance
from runstream.service.platform import Platform


async def make_configstore(platform: Platform, instance: ThisInstance) -> ConfigStoreComponent:
    """Make the projector of the config service."""
    return ConfigStoreComponent(platform.config(), platform.pool(), instance, Questions(platform.nats))
