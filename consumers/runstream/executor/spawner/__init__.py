"""The program that starts the commands of tasks: a small process beside the executor, forked for each sandbox.

    executor -> spawner -> agent of a task -> commands

The agent of a sandbox makes it, is its first process, and lives as long as the task. Without a sandbox an agent serves
one task after the other, for as long as none leaves a process. The program imports nothing but the standard library and
this package, so that a fork is small: most of what it costs are page faults.
"""
