"""The scheduler: one active worker for each partition reads, folds, projects and decides."""
