"""`runstream run create`: a configuration file becomes runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from cyclopts import Parameter
from cyclopts.validators import Number

from runstream.cli.config_files import ConfigFile, read_config
from runstream.cli.input_options import ConfigPath, InputOptions, Texts
from runstream.cli.output import Output, complain, print_json, say
from runstream.cli.pairs import pairs
from runstream.cli.repository import MAX_NAMED, NO_SOURCE, Source, enclosing_source, find_source
from runstream.cli.running import with_client
from runstream.cli.watching import tell_created, watch_runs
from runstream.client import Client, CreatedRuns
from runstream.client import Source as RunSource
from runstream.errors import BadRequestError
from runstream.ids import new_id
from runstream.runconfig import MAX_PRIORITY, SKIP_MARKS, Problem, RefContext, run_group, skip_mark
from runstream.runconfig.problems import shown


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class NewRunOptions:
    """Options of the new runs beside the configuration file."""

    repo: str | None = None
    """Repository for the clone step: a path or a URL. Default: the one that contains the file."""
    ref: str = ""
    """A branch, tag, ref or commit of it. Default: what is checked out."""
    group: str = ""
    """Runs of one group run one at a time. Default: /project/REPOSITORY/branch/BRANCH."""
    env: Texts = None
    """NAME=VALUE for all tasks; repeatable."""
    priority: Annotated[int | None, Parameter(validator=Number(gte=-MAX_PRIORITY, lte=MAX_PRIORITY))] = None
    """-100 to 100, in place of the file's: where executors are short, higher goes first."""
    on_setup_error: Literal["refuse", "run"] = "refuse"
    """What to do with an invalid file: refuse it, or create a run that shows the errors."""

    def source(self, file: ConfigFile) -> Source | None:
        """The commit that the runs are of. Raises BadRequestError, NotExistError for one that is not there."""
        if self.repo is not None:
            return find_source(self.repo, self.ref)
        if self.ref:
            return find_source(str(file.path.resolve().parent), self.ref)
        return enclosing_source(file.path)


def create(
    *,
    config: ConfigPath = None,
    new: NewRunOptions = NewRunOptions(),
    given: InputOptions = InputOptions(),  # noqa: B008
    idempotency_key: str = "",
    strict: Annotated[bool, Parameter(negative="")] = False,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    output: Output = "table",
) -> int:
    """Create the runs of a configuration file.

    With --follow the exit code is 0 when all runs succeeded, 1 when one failed, 3 when one was stopped or cancelled.

    Parameters
    ----------
    config
        The configuration file. Default: the first that is found in .runstream or .agola.
    idempotency_key
        Any text of your choice: the same command with the same key gives the same runs, and creates nothing again.
    strict
        Create nothing where there is a warning: of the file, its inputs, executors, or changes that are not committed.
    follow
        Watch the runs until they end.
    output
        How to print the runs.
    """
    file = read_config(config, Path.cwd())
    inputs, source, environment = given.inputs(file), new.source(file), pairs(new.env or (), "--env")
    if changes := _changes(source):
        if strict:
            raise BadRequestError(changes, code="uncommittedChanges", hint="commit them, or leave --strict out")
        complain(f"warning: {changes}")

    async def work(client: Client) -> int:
        runs = await client.runs.create_from_config(
            inputs,
            source=_told(source),
            group=new.group or _group_of(source),
            environment=environment,
            priority=new.priority,
            on_setup_error=new.on_setup_error,
            strict=strict,
            idempotency_key=idempotency_key or new_id(),
        )
        _tell_warnings(runs)
        if follow and runs:
            return await watch_runs(client, runs)
        if output == "json":
            print_json(runs.runs)
        else:
            _tell_none(runs, source)
            await tell_created(client, [await client.runs.get(run.id) for run in runs] if idempotency_key else runs)
        return 1 if any(run.setup_errors for run in runs) else 0

    return with_client(work)


def _told(source: Source | None) -> RunSource:
    about = source or NO_SOURCE
    return RunSource(about.branch, about.tag, about.ref, about.commit, about.url, about.message)


def _group_of(source: Source | None) -> str:
    """The group by default; empty without sources, which leaves it to the service."""
    if source is None:
        return ""
    root = f"/project/{source.project}"
    if source.branch or source.tag:
        return run_group(root, RefContext(branch=source.branch, tag=source.tag))
    return f"{root}/ref/{quote(source.ref or source.commit, safe='')}"


def _tell_warnings(runs: CreatedRuns) -> None:
    for warning in runs.warnings:
        complain(f"warning: {Problem(warning.path, warning.line or 0, warning.message, warning.hint)}")


def _changes(source: Source | None) -> str:
    """Return what is not committed, in a sentence; empty for nothing."""
    changed = source.changed if source is not None else ()
    if not changed:
        return ""
    more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
    names = ", ".join(shown(name).strip('"') for name in changed[:MAX_NAMED])
    have = "has" if len(changed) == 1 else "have"
    return f"{names}{more} {have} changes that are not committed: they are not in this run"


def _tell_none(runs: CreatedRuns, source: Source | None) -> None:
    if any(run.reason == "ci_skip" for run in runs.skipped):
        mark = skip_mark(source.message) if source is not None else ""
        say(f"the message of the commit says {mark or SKIP_MARKS[0]}: nothing was created")
    elif not runs:
        say("no run of the file is for this branch, tag or ref: nothing was created")
