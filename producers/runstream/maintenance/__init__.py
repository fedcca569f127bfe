"""Maintenance: a service stands still while something is done to it, and every process says how far it is.

Mode, Parkable     in each process: what is asked for, and a component that is parked when it is
Instance           this process among the others: its lease, its state, what it hears
Roster, Overview   all processes, the lost ones too, as the API shows them
MaintenanceControl enabling and disabling
require_parked, occupied   what work in maintenance rests on
"""

from runstream.maintenance.control import MaintenanceControl
from runstream.maintenance.mode import Mode, RestingLog
from runstream.maintenance.overview import InstanceShape, MaintenanceAnswer, Overview
from runstream.maintenance.parkable import Parkable
from runstream.maintenance.presence import Instance
from runstream.maintenance.requested import Order, Requested, require_said, require_service
from runstream.maintenance.requiring import Occupation, occupied, require_parked
from runstream.maintenance.roster import Roster

__all__ = [
    "Instance",
    "InstanceShape",
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
    "occupied",
    "require_parked",
    "require_said",
    "require_service",
]
