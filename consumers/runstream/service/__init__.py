"""The composition root: the command line and the process of `runstream serve`. Nothing imports it."""

from runstream.garbage import defer_collection

defer_collection()  # before everything else is loaded
