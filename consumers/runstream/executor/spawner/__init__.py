"""The spawner: a small process beside the executor that starts the commands of tasks, forked for each sandbox.

    executor -> spawner -> agent of a task -> commands

The agent of a sandbox creates it, is its first process, and lives as long as the task. Without a sandbox an agent
serves one task after another, as long as none leaves a process behind. The program imports only the standard library
and this package, which keeps a fork cheap: most of its cost are page faults.
"""
