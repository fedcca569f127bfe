"""The scheduler: one active worker for each partition reads, folds, projects and decides."""

from runstream.scheduler.scheduler import Scheduler

__all__ = ["Scheduler"]
