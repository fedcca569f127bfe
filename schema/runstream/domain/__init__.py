"""Runs, tasks and executors, and all rules about them: pure functions of state, time and events."""
