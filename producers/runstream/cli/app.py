"""The client commands as one cyclopts application, with an example for each; a command is imported when it runs."""

from __future__ import annotations

from cyclopts import App, Group

CLIENT = Group("Runs", sort_key=1)

app = App(name="runstream", help="Create runs, follow them, read their logs.", version_flags=[])

runs = App(name="run", help="Create, watch and control runs.", group=CLIENT)
runs.command(
    "runstream.cli.run_commands:create",
    name="create",
    help="Create runs from a configuration file.\n\n"
    "With --follow the exit code is 0 when all succeeded, 1 when one failed, 3 when one was stopped or cancelled.",
)
runs.command(
    "runstream.cli.run_commands:restart",
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
runs.command("runstream.cli.run_commands:why", name="why", help="Explain why a run is waiting.")
runs.command("runstream.cli.run_commands:stop_run", name="stop", help="Stop a running run.")
runs.command("runstream.cli.run_commands:cancel_run", name="cancel", help="Cancel a queued run.")
runs.command("runstream.cli.run_commands:pause_run", name="pause", help="Pause a run: no new tasks start.")
runs.command("runstream.cli.run_commands:resume_run", name="resume", help="Resume a paused run.")
runs.command(
    "runstream.cli.run_commands:approve_task", name="approve", help="Approve a task that is waiting for approval."
)
runs.command("runstream.cli.run_commands:annotate_task", name="annotate", help="Attach notes to a task.")

configs = App(name="config", help="Check configuration files.", group=CLIENT)
configs.command(
    "runstream.cli.config_commands:print_schema",
    name="schema",
    help="Print the JSON Schema of configuration files, for use in editors.",
)
configs.command(
    "runstream.cli.config_commands:check",
    name="check",
    help="Show what a configuration file would run, or every mistake in it. Needs no running service.",
)

logs = App(name="log", help="Read the logs of tasks.", group=CLIENT)
logs.command("runstream.cli.log_commands:get_log", name="get", help="Print the logs of a run, a task or a step.")

executors = App(name="executor", help="List, drain and remove executors.", group=CLIENT)
executors.command("runstream.cli.executor_commands:list_executors", name="list", help="List executors.")
executors.command(
    "runstream.cli.executor_commands:drain_executor",
    name="drain",
    help="Stop giving an executor new tasks; running tasks finish.",
)
executors.command(
    "runstream.cli.executor_commands:undrain_executor", name="undrain", help="Let a drained executor take tasks again."
)
executors.command("runstream.cli.executor_commands:delete_executor", name="delete", help="Remove an executor.")

events = App(name="events", help="Follow the event log.", group=CLIENT)
events.command(
    "runstream.cli.events_commands:tail_events", name="tail", help="Print commits of the log as they are appended."
)

maintenance = App(name="maintenance", help="Put a service into maintenance mode.", group=CLIENT)
maintenance.command(
    "runstream.cli.maintenance_commands:enable",
    name="enable",
    help="Stop all work of a service: running tasks finish, nothing new starts, the API answers 503.",
)
maintenance.command("runstream.cli.maintenance_commands:disable", name="disable", help="End maintenance: work resumes.")
maintenance.command("runstream.cli.maintenance_commands:status", name="status", help="Show the state of every process.")
maintenance.command(
    "runstream.cli.maintenance_commands:forget",
    name="forget",
    help="Remove a lost process from the list, once you are certain that it has ended.",
)

for part in (runs, configs, logs, executors, events, maintenance):
    app.command(part)


EXAMPLES = {
    "run create": ("runstream run create --follow", "runstream run create --config ci.yml --env STAGE=test"),
    "run restart": ("runstream run restart latest --from-failed --follow",),
    "run list": ("runstream run list --project web --branch main", "runstream run list --waiting-approval"),
    "run get": ("runstream run get /project/web/12", "runstream run get latest --output json"),
    "run follow": ("runstream run follow latest",),
    "run why": ("runstream run why /project/web/12",),
    "run stop": ("runstream run stop /project/web/12",),
    "run cancel": ("runstream run cancel /project/web/12",),
    "run pause": ("runstream run pause /project/web/12",),
    "run resume": ("runstream run resume /project/web/12",),
    "run approve": ("runstream run approve /project/web/12 deploy",),
    "run annotate": ("runstream run annotate /project/web/12 deploy ticket=OPS-7",),
    "config schema": ("runstream config schema > run-config.schema.json",),
    "config check": ("runstream config check .runstream/config.yml --strict",),
    "log get": ("runstream log get latest --failed --tail 20", "runstream log get /project/web/12 test --step unit"),
    "executor list": ("runstream executor list",),
    "executor drain": ("runstream executor drain EXECUTOR",),
    "executor undrain": ("runstream executor undrain EXECUTOR",),
    "executor delete": ("runstream executor delete EXECUTOR",),
    "events tail": ("runstream events tail --from start", "runstream events tail --run latest --output json"),
    "maintenance enable": ("runstream maintenance enable --wait --deadline 10m --reason upgrade",),
    "maintenance disable": ("runstream maintenance disable --wait",),
    "maintenance status": ("runstream maintenance status --wait",),
    "maintenance forget": ("runstream maintenance forget INSTANCE",),
    "init": ("runstream init",),
    "serve": ("runstream serve --detach",),
    "stop": ("runstream stop",),
    "status": ("runstream status",),
    "env": ('eval "$(runstream env)"',),
    "doctor": ("runstream doctor",),
    "fsck": ("runstream fsck",),
    "rebuild": ("runstream rebuild",),
    "parked list": ("runstream parked list",),
    "parked show": ("runstream parked show 1/0/812",),
    "parked retry": ("runstream parked retry",),
    "parked skip": ("runstream parked skip 1/0/812 --reason 'written by a broken version'",),
    "export": ("runstream export -o backup.snapshot.tar --with logs,archives",),
    "import": ("runstream import backup.snapshot.tar",),
    "epochs list": ("runstream epochs list",),
    "epochs activate": ("runstream epochs activate 2",),
    "epochs delete": ("runstream epochs delete 1",),
    "snapshot verify": ("runstream snapshot verify backup.snapshot.tar",),
    "snapshot show": ("runstream snapshot show backup.snapshot.tar",),
    "snapshot diff": ("runstream snapshot diff before.snapshot.tar after.snapshot.tar",),
    "snapshot keygen": ("runstream snapshot keygen signing",),
    "completion": ('eval "$(runstream completion bash)"',),
}
"""By the words of the command after `runstream`."""


def example_text(command: str) -> str | None:
    """Return the examples at the end of a command's help; None for a group of commands."""
    if command not in EXAMPLES:
        return None
    return "\n\n".join(["Examples:" if len(EXAMPLES[command]) > 1 else "Example:", *EXAMPLES[command]])
