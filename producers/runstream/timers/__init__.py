"""Commands for later: scheduled messages that survive every restart."""

from runstream.timers.timers import Due, Timers, open_timers

__all__ = ["Due", "Timers", "open_timers"]
