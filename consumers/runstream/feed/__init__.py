"""Reading the log for work: commits in order, what cannot be read set aside."""
