"""The composition root: what `runstream serve` puts together. It may import everything, and nothing imports it."""
