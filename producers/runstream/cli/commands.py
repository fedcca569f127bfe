"""Every command: its words, its function, its help and its examples.

Functions are named, not imported, so that a command loads only what it needs, and so that the commands of the service
stand beside those of its clients. `runstream.service.main` makes the command line of this table.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command of `runstream`."""

    words: str
    function: str
    """The function, below `runstream`: `cli.run_commands:list_runs`."""
    help: str
    examples: tuple[str, ...]


def _command(words: str, function: str, text: str, *examples: str) -> Command:
    return Command(words, function, text, examples)


GROUPS = {
    "run": "Create, watch and control runs.",
    "config": "Check configuration files.",
    "log": "Read the logs of tasks.",
    "cache": "List and delete the caches of tasks.",
    "storage": "See what takes room in the object storage.",
    "executor": "List, drain and remove executors.",
    "events": "Follow the event log.",
    "maintenance": "Put a service into maintenance mode.",
    "parked": "Inspect, retry and skip parked commits: those that could not be read or applied.",
    "epochs": "List, activate and delete epochs (generations of the log).",
    "snapshot": "Verify, show and compare snapshot files.",
}
"""The help of words with several commands."""
OF_RUNS = ("run", "config", "log", "cache", "executor", "events", "maintenance", "init")
"""First words of the commands about runs; the others are about the service."""
# fmt: off
COMMANDS = (
    _command("run create", "cli.run_commands:create",
        "Create runs from a configuration file.\n\n"
        "With --follow the exit code is 0 when all succeeded, 1 when one failed, 3 when one was stopped or cancelled.",
        "runstream run create --follow", "runstream run create --config ci.yml --env STAGE=test"),
    _command("run restart", "cli.run_commands:restart",
        "Re-run a finished run: everything, only what failed, or selected tasks.\n\n"
        "With --follow the exit code is 0 when it succeeded, 1 when it failed, 3 when it was stopped or cancelled.",
        "runstream run restart latest --from-failed --follow"),
    _command("run list", "cli.run_commands:list_runs", "List runs, the newest first.",
        "runstream run list --project web --branch main", "runstream run list --waiting-approval"),
    _command("run get", "cli.run_commands:get_run", "Show one run with its tasks and steps.",
        "runstream run get /project/web/12", "runstream run get latest --output json"),
    _command("run follow", "cli.run_commands:follow_run",
        "Follow a run until it ends.\n\n"
        "The exit code is 0 when it succeeded, 1 when it failed, 3 when it was stopped or cancelled.",
        "runstream run follow latest"),
    _command("run why", "cli.run_commands:why", "Explain why a run is waiting.", "runstream run why /project/web/12"),
    _command("run stop", "cli.run_commands:stop_run", "Stop a running run.", "runstream run stop /project/web/12"),
    _command("run delete", "cli.run_commands:delete_runs",
        "Delete runs that have ended, with the logs and archives that no other run refers to.",
        "runstream run delete /project/web/12", "runstream run delete 0b9f7f6e 5c1d22aa --yes"),
    _command("run cancel", "cli.run_commands:cancel_run", "Cancel a queued run.",
        "runstream run cancel /project/web/12"),
    _command("run pause", "cli.run_commands:pause_run", "Pause a run: no new tasks start.",
        "runstream run pause /project/web/12"),
    _command("run resume", "cli.run_commands:resume_run", "Resume a paused run.",
        "runstream run resume /project/web/12"),
    _command("run approve", "cli.run_commands:approve_task", "Approve a task that is waiting for approval.",
        "runstream run approve /project/web/12 deploy"),
    _command("run annotate", "cli.run_commands:annotate_task", "Attach notes to a task.",
        "runstream run annotate /project/web/12 deploy ticket=OPS-7"),
    _command("config schema", "cli.config_commands:print_schema",
        "Print the JSON Schema of configuration files, for use in editors.",
        "runstream config schema > run-config.schema.json"),
    _command("config check", "cli.config_commands:check",
        "Show what a configuration file would run, or every mistake in it. Needs no running service.",
        "runstream config check .runstream/config.yml --strict"),
    _command("log get", "cli.log_commands:get_log", "Print the logs of a run, a task or a step.",
        "runstream log get latest --failed --tail 20", "runstream log get /project/web/12 test --step unit"),
    _command("cache list", "cli.cache_commands:list_caches", "List the caches of tasks.",
        "runstream cache list --group /project/web"),
    _command("cache delete", "cli.cache_commands:delete_cache", "Delete a cache of tasks.",
        "runstream cache delete deps-1f3a --group /project/web"),
    _command("executor list", "cli.executor_commands:list_executors", "List executors.", "runstream executor list"),
    _command("executor drain", "cli.executor_commands:drain_executor",
        "Stop giving an executor new tasks; running tasks finish.", "runstream executor drain EXECUTOR"),
    _command("executor undrain", "cli.executor_commands:undrain_executor", "Let a drained executor take tasks again.",
        "runstream executor undrain EXECUTOR"),
    _command("executor delete", "cli.executor_commands:delete_executor", "Remove an executor.",
        "runstream executor delete EXECUTOR"),
    _command("events tail", "cli.events_commands:tail_events", "Print commits of the log as they are appended.",
        "runstream events tail --from start", "runstream events tail --run latest --output json"),
    _command("maintenance enable", "cli.maintenance_commands:enable",
        "Stop all work of a service: running tasks finish, nothing new starts, the API answers 503.",
        "runstream maintenance enable --wait --deadline 10m --reason upgrade"),
    _command("maintenance disable", "cli.maintenance_commands:disable", "End maintenance: work resumes.",
        "runstream maintenance disable --wait"),
    _command("maintenance status", "cli.maintenance_commands:status", "Show the state of every process.",
        "runstream maintenance status --wait"),
    _command("maintenance forget", "cli.maintenance_commands:forget",
        "Remove a lost process from the list, once you are certain that it has ended.",
        "runstream maintenance forget INSTANCE"),
    _command("init", "cli.init_command:init",
        "Write a starter configuration for this repository. Needs no running service.", "runstream init"),
    _command("serve", "service.serve_commands:serve_command", "Run the service: all components, or some of them.",
        "runstream serve --detach"),
    _command("stop", "service.serve_commands:stop_command", "Stop the service of this data directory.",
        "runstream stop"),
    _command("status", "service.status_command:status_command",
        "Show whether the service is running, where, since when, and what it is doing.", "runstream status"),
    _command("env", "cli.client_session:print_environment",
        'Print RUNSTREAM_URL and RUNSTREAM_TOKEN for a shell: eval "$(runstream env)".', 'eval "$(runstream env)"'),
    _command("doctor", "service.doctor:doctor_command",
        "Check servers, durability, migrations, clocks and disk, and suggest fixes.", "runstream doctor"),
    _command("fsck", "service.database_commands:fsck_command",
        "Check every row of the database, and the archive, against the log.", "runstream fsck"),
    _command("rebuild", "service.database_commands:rebuild_command",
        "Rebuild the database from the log without downtime.", "runstream rebuild"),
    _command("parked list", "service.parked_commands:list_command",
        "List parked commits with their positions and reasons.", "runstream parked list"),
    _command("parked show", "service.parked_commands:show_command", "Show a parked commit as it is stored in the log.",
        "runstream parked show 1/0/812"),
    _command("parked retry", "service.parked_commands:retry_command",
        "Ask the scheduler to apply parked commits again.", "runstream parked retry"),
    _command("parked skip", "service.parked_commands:skip_command", "Skip a parked commit for good.",
        "runstream parked skip 1/0/812 --reason 'written by a broken version'"),
    _command("export", "service.export_command:export_command",
        "Export the log to a file while the service keeps running.",
        "runstream export -o backup.snapshot.tar --with logs,archives"),
    _command("import", "service.epoch_commands:import_command",
        "Replace the log with a snapshot (requires maintenance mode).", "runstream import backup.snapshot.tar"),
    _command("epochs list", "service.epoch_commands:list_command", "List epochs and show which one is active.",
        "runstream epochs list"),
    _command("epochs activate", "service.epoch_commands:activate_command",
        "Switch to another epoch (requires maintenance mode).", "runstream epochs activate 2"),
    _command("epochs delete", "service.epoch_commands:delete_command", "Delete an epoch that is not active.",
        "runstream epochs delete 1"),
    _command("snapshot verify", "service.snapshot_commands:verify_command",
        "Verify a snapshot: every hash, commit and reference.", "runstream snapshot verify backup.snapshot.tar"),
    _command("snapshot show", "service.snapshot_commands:show_command",
        "Show the contents of a snapshot, or one of its commits.", "runstream snapshot show backup.snapshot.tar"),
    _command("snapshot diff", "service.snapshot_commands:diff_command", "Compare the commits of two snapshots.",
        "runstream snapshot diff before.snapshot.tar after.snapshot.tar"),
    _command("snapshot keygen", "service.snapshot_commands:keygen_command",
        "Generate a key pair for signing snapshots.", "runstream snapshot keygen signing"),
    _command("storage status", "cli.storage_commands:status",
        "Show what the object storage holds, and what retention removes next.", "runstream storage status"),
    _command("completion", "service.completion:completion_command",
        'Print a shell completion script: eval "$(runstream completion bash)".',
        'eval "$(runstream completion bash)"'),
)
# fmt: on
EXAMPLES = {command.words: command.examples for command in COMMANDS}


def example_text(command: str) -> str | None:
    """Return the examples at the end of a command's help; None for a group of commands."""
    if command not in EXAMPLES:
        return None
    return "\n\n".join(["Examples:" if len(EXAMPLES[command]) > 1 else "Example:", *EXAMPLES[command]])
