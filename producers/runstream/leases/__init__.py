"""Who is alive and what they say about themselves: keys that vanish when nobody renews them."""

from runstream.leases.board import LeaseBoard, open_leases
from runstream.leases.lease import Lease, LeaseLostError
from runstream.leases.watching import LeaseChange, LeaseWatch

__all__ = ["Lease", "LeaseBoard", "LeaseChange", "LeaseLostError", "LeaseWatch", "open_leases"]
