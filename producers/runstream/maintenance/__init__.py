"""Maintenance: every process of a service parks its work while the log is replaced or repaired.

request      the request for maintenance, one key in NATS, and the control that changes it
mode         one process's answer to it: which components work, drain or are parked
records      what a process publishes about itself in its lease
instances    all processes of a deployment: this one's lease, the roster of the others, the overview that the API shows
lock         the exclusive right to work on a service while all of it is parked
"""
