"""Maintenance: every process of a service parks its work while the log is replaced or repaired.

request      the request for maintenance, one key in NATS, and the control that changes it
mode         one process's answer to it: which components work, drain or are parked
records      what a process publishes about itself in its lease
instances    all processes of a deployment: this one's lease, the roster of the others, the overview that the API shows
occupation   the exclusive right to work on a service while all of it is parked
"""

from runstream.maintenance.instances import (
    INSTANCE_SECONDS,
    Instance,
    InstanceShape,
    MaintenanceAnswer,
    Overview,
    Roster,
    open_instance_leases,
)
from runstream.maintenance.mode import Mode, Parkable, RestingLog
from runstream.maintenance.occupation import (
    MaintainedService,
    Occupation,
    maintained_service,
    occupied,
    require_parked,
)
from runstream.maintenance.request import (
    SERVICE,
    SERVICES,
    MaintenanceControl,
    Order,
    Requested,
    require_author_and_reason,
    require_service,
)

__all__ = [
    "INSTANCE_SECONDS",
    "SERVICE",
    "SERVICES",
    "Instance",
    "InstanceShape",
    "MaintainedService",
    "MaintenanceAnswer",
    "MaintenanceControl",
    "Mode",
    "Occupation",
    "Order",
    "Overview",
    "Parkable",
    "Requested",
    "RestingLog",
    "Roster",
    "maintained_service",
    "occupied",
    "open_instance_leases",
    "require_author_and_reason",
    "require_parked",
    "require_service",
]
