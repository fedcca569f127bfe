"""The client commands, as one cyclopts application to be mounted in `runstream`; each is imported when it is used."""

from __future__ import annotations

from cyclopts import App, Group

CLIENT = Group("Runs", sort_key=1)

app = App(name="runstream", help="Create runs, follow them, read their logs.", version_flags=[])

runs = App(name="run", help="Create, watch and steer runs.", group=CLIENT)
runs.command(
    "runstream.cli.create_command:create",
    name="create",
    help="Create runs from a configuration file.\n\n"
    "With --follow the exit code is 0 when all succeeded, 1 when one failed, 3 when one was stopped or cancelled.",
)
runs.command(
    "runstream.cli.restart_command:restart",
    name="restart",
    help="Re-run a finished run: everything, only what failed, or selected tasks.\n\n"
    "With --follow the exit code is 0 when it succeeded, 1 when it failed, 3 when it was stopped or cancelled.",
)
runs.command("runstream.cli.run_commands:list_runs", name="list", help="List runs, the newest first.")
runs.command("runstream.cli.run_commands:get_run", name="get", help="Show one run with its tasks and steps.")
runs.command(
    "runstream.cli.run_commands:follow_run",
    name="follow",
    help="Follow a run until it ends.\n\n"
    "The exit code is 0 when it succeeded, 1 when it failed, 3 when it was stopped or cancelled.",
)
runs.command("runstream.cli.why_command:why", name="why", help="Say why a run waits.")
runs.command("runstream.cli.steer_commands:stop_run", name="stop", help="Stop a running run.")
runs.command("runstream.cli.steer_commands:cancel_run", name="cancel", help="Withdraw a queued run.")
runs.command("runstream.cli.steer_commands:pause_run", name="pause", help="Pause a run: no new tasks start.")
runs.command("runstream.cli.steer_commands:resume_run", name="resume", help="Resume a paused run.")
runs.command("runstream.cli.steer_commands:approve_task", name="approve", help="Approve a task that waits for it.")
runs.command("runstream.cli.annotate_command:annotate_task", name="annotate", help="Attach notes to a task.")

configs = App(name="config", help="Check configuration files.", group=CLIENT)
configs.command(
    "runstream.cli.config_schema:print_schema",
    name="schema",
    help="Print the JSON Schema of configuration files, for editors.",
)
configs.command(
    "runstream.cli.config_commands:check",
    name="check",
    help="Show what a configuration file would run, or everything that is wrong with it. No service is needed.",
)

logs = App(name="log", help="Read what tasks wrote.", group=CLIENT)
logs.command("runstream.cli.log_commands:get_log", name="get", help="Print the logs of a run, a task or a step.")

executors = App(name="executor", help="List, drain and remove executors.", group=CLIENT)
executors.command("runstream.cli.executor_commands:list_executors", name="list", help="List executors.")
executors.command("runstream.cli.executor_commands:drain_executor", name="drain", help="Give an executor no new tasks.")
executors.command(
    "runstream.cli.executor_commands:undrain_executor", name="undrain", help="Give an executor tasks again."
)
executors.command("runstream.cli.executor_commands:delete_executor", name="delete", help="Remove an executor.")

events = App(name="events", help="Follow the log.", group=CLIENT)
events.command(
    "runstream.cli.events_commands:tail_events", name="tail", help="Print commits of the log as they are appended."
)

maintenance = App(name="maintenance", help="Put a service into maintenance mode.", group=CLIENT)
maintenance.command(
    "runstream.cli.maintenance_commands:enable",
    name="enable",
    help="Stop all work of a service: running tasks end, nothing new begins, the API answers 503.",
)
maintenance.command("runstream.cli.maintenance_commands:disable", name="disable", help="End maintenance: work resumes.")
maintenance.command("runstream.cli.maintenance_commands:status", name="status", help="Show the state of every process.")
maintenance.command(
    "runstream.cli.maintenance_commands:forget",
    name="forget",
    help="Forget a lost process, when it is certain that it has ended.",
)

for part in (runs, configs, logs, executors, events, maintenance):
    app.command(part)
