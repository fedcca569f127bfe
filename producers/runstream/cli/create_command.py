"""`runstream run create`: a configuration file becomes runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from cyclopts import Parameter
from cyclopts.validators import Number

from runstream.cli.config_files import ConfigFile, read_config
from runstream.cli.input_files import read_files, warn_of_readers
from runstream.cli.output import Output, complain, print_json, say
from runstream.cli.pairs import pairs
from runstream.cli.repository import NO_SOURCE, Source, enclosing_source, find_source
from runstream.cli.running import with_client
from runstream.cli.watching import tell_created, watch_runs
from runstream.client import Client, CreatedRuns
from runstream.runconfig import MAX_PRIORITY, RefContext, run_group

Pairs = Annotated[list[str] | None, Parameter(negative="")]
Paths = Annotated[list[Path] | None, Parameter(negative="")]


def create(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    repo: str | None = None,
    ref: str = "",
    group: str = "",
    env: Pairs = None,
    var: Pairs = None,
    var_file: Paths = None,
    secret_file: Paths = None,
    priority: Annotated[int | None, Parameter(validator=Number(gte=-MAX_PRIORITY, lte=MAX_PRIORITY))] = None,
    on_setup_error: Literal["refuse", "run"] = "refuse",
    idempotency_key: str = "",
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    output: Output = "table",
) -> int:
    """Create the runs of a configuration file.

    With --follow the exit code is 0 when all runs succeeded, 1 when one failed, 2 when one was stopped or cancelled.

    Parameters
    ----------
    config
        The configuration file. Default: the first that is found in .runstream or .agola.
    repo
        The repository that the clone step clones: a path or a URL. Default: the one that the file is in.
    ref
        A branch, tag, ref or commit of it. Default: what is checked out.
    group
        Runs of one group run one at a time. Default: /project/REPOSITORY/branch/BRANCH.
    env
        NAME=VALUE for all tasks; repeatable.
    var
        NAME=VALUE for `from_variable` in the file; repeatable. Not for secrets.
    var_file
        A file of variables in YAML or JSON; repeatable, the last wins, and --var before it.
    secret_file
        A file of secrets, which are encrypted before anything is stored; repeatable.
    priority
        -100 to 100, in place of the file's: where executors are short, higher goes first.
    on_setup_error
        What a file that is no configuration makes: an error, or a run that shows what is wrong.
    idempotency_key
        Any text of your choice: the same command with the same key gives the same runs, and creates nothing again.
    follow
        Watch the runs until they end.
    output
        How to print the runs.
    """
    file = read_config(config, Path.cwd())
    warn_of_readers(secret_file)
    given = _Given(
        group,
        pairs(env or (), "--env"),
        pairs(var or (), "--var"),
        dict(read_files(var_file)),
        dict(read_files(secret_file)),
        priority,
        on_setup_error,
        idempotency_key,
    )
    source = _source(file, repo, ref)

    async def work(client: Client) -> int:
        runs = await _create(client, file, source, given)
        for warning in runs.warnings:
            where = f"line {warning.line}, {warning.path}" if warning.line else warning.path
            complain(f"warning: {where}: {warning.message}" + (f" ({warning.hint})" if warning.hint else ""))
        if follow:
            return await watch_runs(client, runs)
        if output == "json":
            print_json(runs.runs)
        else:
            _tell_none(runs)
            tell_created([await client.runs.get(run.id) for run in runs] if idempotency_key else runs)
        return 1 if any(run.setup_errors for run in runs) else 0

    return with_client(work)


def _source(file: ConfigFile, repo: str | None, ref: str) -> Source | None:
    if repo is not None:
        return find_source(repo, ref)
    if ref:
        return find_source(str(file.path.resolve().parent), ref)
    return enclosing_source(file.path)


def _group_of(source: Source) -> str:
    root = f"/project/{source.project}"
    if source.branch or source.tag:
        return run_group(root, RefContext(branch=source.branch, tag=source.tag))
    return f"{root}/ref/{quote(source.ref or source.commit, safe='')}"


@dataclass(frozen=True, slots=True)
class _Given:
    """What was given beside the file and its sources."""

    group: str
    environment: dict[str, str]
    variables: dict[str, str]
    variable_files: dict[str, str]
    secret_files: dict[str, str] = field(repr=False)
    priority: int | None
    on_setup_error: Literal["refuse", "run"]
    idempotency_key: str


async def _create(client: Client, file: ConfigFile, source: Source | None, given: _Given) -> CreatedRuns:
    about = source or NO_SOURCE
    return await client.runs.create_from_config(
        file.content,
        name=file.name,
        imports=file.imports,
        group=given.group or ("" if source is None else _group_of(source)),
        branch=about.branch,
        tag=about.tag,
        ref=about.ref,
        commit_sha=about.commit,
        repository_url=about.url,
        message=about.message,
        environment=given.environment,
        variables=given.variables,
        variable_files=given.variable_files,
        secret_files=given.secret_files,
        priority=given.priority,
        on_setup_error=given.on_setup_error,
        idempotency_key=given.idempotency_key,
    )


def _tell_none(runs: CreatedRuns) -> None:
    if any(run.reason == "ci_skip" for run in runs.skipped):
        say("the message of the commit says [ci skip]: nothing was created")
    elif not runs:
        say("no run of the file is for this branch, tag or ref: nothing was created")
