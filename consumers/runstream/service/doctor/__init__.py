"""`runstream doctor`: what is checked, and what to do about what is wrong.

A finding is `ok`, `warning` (works, but not as well as it should), `problem` (does not work, or loses data) or
`unknown` (could not be asked, and who could be). Each module yields the findings of one thing.
"""

from runstream.service.doctor.finding import Finding, Status

__all__ = ["Finding", "Status"]
