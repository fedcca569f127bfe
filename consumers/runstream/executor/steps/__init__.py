"""What each type of step does. A step's function returns its exit status, or raises why it could not run."""
