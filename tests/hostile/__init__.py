"""Attacks on a running service, by its tasks and by its clients. Each passes when the attack fails."""
