"""The types of steps. A step's function raises the reason why it failed; `run` and `clone` return an exit status."""
