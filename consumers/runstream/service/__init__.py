"""The composition root: what `runstream serve` puts together. It may import everything, and nothing imports it."""

from runstream.garbage import load_without_looking

load_without_looking()  # before everything else is loaded
