"""The program that starts the commands of tasks: a small process beside the executor, forked for each task.

    executor -> spawner -> agent of a task -> commands

An agent makes the task's sandbox when it starts, and lives as long as the task; each command is a fork of it. The
program imports nothing but the standard library and this package, so that a fork is small and takes half a millisecond.
"""
