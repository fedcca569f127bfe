"""What a run, a task, an executor is, and every rule about them: pure functions of state, time and events."""
