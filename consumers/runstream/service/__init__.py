"""The composition root: what `runstream serve` puts together. It may import everything, and nothing imports it."""

from runstream.garbage import defer_collection

defer_collection()  # before everything else is loaded
