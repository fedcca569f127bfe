"""The client commands, as one cyclopts application to be mounted in `runstream`."""

from __future__ import annotations

from cyclopts import App, Group

from runstream.cli.create_command import create
from runstream.cli.events_commands import tail_events
from runstream.cli.executor_commands import delete_executor, list_executors
from runstream.cli.log_commands import get_log
from runstream.cli.run_commands import approve_task, cancel_run, follow_run, get_run, list_runs, stop_run

_CLIENT = Group("Runs and what becomes of them", sort_key=1)

app = App(name="runstream", help="Publish runs, read what became of them, follow the log.", version_flags=[])

runs = App(name="run", help="Create, watch and steer runs.", group=_CLIENT)
runs.command(create, name="create")
runs.command(list_runs, name="list")
runs.command(get_run, name="get")
runs.command(follow_run, name="follow")
runs.command(stop_run, name="stop")
runs.command(cancel_run, name="cancel")
runs.command(approve_task, name="approve")

logs = App(name="log", help="Read what tasks wrote.", group=_CLIENT)
logs.command(get_log, name="get")

executors = App(name="executor", help="See and forget executors.", group=_CLIENT)
executors.command(list_executors, name="list")
executors.command(delete_executor, name="delete")

events = App(name="events", help="Follow the log.", group=_CLIENT)
events.command(tail_events, name="tail")

for part in (runs, logs, executors, events):
    app.command(part)
