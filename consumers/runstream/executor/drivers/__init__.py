"""Where tasks run. A driver makes pods; a pod executes the commands of one task and can be ended."""
