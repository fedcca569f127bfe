"""The types of steps. A step's function returns its exit status, or raises the reason why it could not run."""
