"""`runstream run restart`: a run that has ended is done again, or some of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from runstream.cli.config_files import read_config
from runstream.cli.finding import find_run, find_task
from runstream.cli.input_files import read_files, warn_of_readers
from runstream.cli.output import Output, print_json
from runstream.cli.pairs import pairs
from runstream.cli.running import with_client
from runstream.cli.watching import tell_created, watch_runs
from runstream.client import Client, Inputs, Restart
from runstream.errors import BadRequestError

Texts = Annotated[list[str] | None, Parameter(negative="")]
Paths = Annotated[list[Path] | None, Parameter(negative="")]
Flag = Annotated[bool, Parameter(negative="")]


def restart(
    run: str,
    /,
    *,
    from_failed: Flag = False,
    task: Texts = None,
    and_descendants: Flag = False,
    env: Texts = None,
    fresh: Flag = False,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    var: Texts = None,
    var_file: Paths = None,
    secret_file: Paths = None,
    idempotency_key: str = "",
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    output: Output = "table",
) -> int:
    """Do again what a run that has ended did, as a new run. What does not run again keeps its outcome, logs and files.

    With --follow the exit code is 0 when it succeeded, 1 when it failed, 2 when it was stopped or cancelled.

    Parameters
    ----------
    run
        An id, or GROUP/NUMBER such as /project/web/branch/main/12.
    from_failed
        Only what did not succeed, and what depends on it. Default: everything.
    task
        Only this task, also one that succeeded, by its name or id; repeatable.
    and_descendants
        With --task: what depends on these tasks, too. Without it, that keeps its outcome.
    env
        NAME=VALUE for all tasks, in place of those of the earlier run; repeatable.
    fresh
        Resolve variables and secrets again, from the same file with other inputs. Default: as they were.
    config
        With --fresh: the configuration file. Default: the first that is found in .runstream or .agola.
    var
        With --fresh: NAME=VALUE for `from_variable` in the file; repeatable. Not for secrets.
    var_file
        With --fresh: a file of variables in YAML or JSON; repeatable, the last wins, and --var before it.
    secret_file
        With --fresh: a file of secrets, which are encrypted before anything is stored; repeatable.
    idempotency_key
        Any text of your choice: the same command with the same key gives the same run, and creates nothing again.
    follow
        Watch the run until it ends.
    output
        How to print the run.
    """
    names = task or ()
    _require_one(names, from_failed=from_failed, and_descendants=and_descendants)
    environment = pairs(env, "--env") if env else None
    inputs = _inputs(config, var, var_file, secret_file) if fresh else None
    if not fresh and (config or var or var_file or secret_file):
        raise BadRequestError(
            "--config, --var, --var-file and --secret-file go with --fresh",
            code="invalidRestart",
            hint="without --fresh, variables and secrets are those of the earlier run",
        )

    async def work(client: Client) -> int:
        earlier = await find_run(client, run)
        new = await client.runs.restart(
            earlier.id,
            from_start=not (from_failed or names),
            tasks=[find_task(earlier, name).name for name in names],
            descendants=and_descendants,
            environment=environment,
            fresh=inputs,
            idempotency_key=idempotency_key,
        )
        if follow:
            return await watch_runs(client, [new])
        if output == "json":
            print_json(new)
        else:
            tell_created([await client.runs.get(new.id)] if idempotency_key else [new])
        return 0

    return with_client(work)


def what_again(restart: Restart) -> str:
    """What a restart runs again, in words."""
    if restart.scope == "all":
        return "all of it"
    if restart.scope == "failed":
        return "what did not succeed"
    return ", ".join(restart.tasks) + (" and what depends on it" if restart.descendants else "")


def _inputs(config: Path | None, var: Texts, var_file: Paths, secret_file: Paths) -> Inputs:
    file = read_config(config, Path.cwd())
    warn_of_readers(secret_file)
    return Inputs(
        file.content,
        file.name,
        file.imports,
        pairs(var or (), "--var"),
        dict(read_files(var_file)),
        dict(read_files(secret_file)),
    )


def _require_one(names: Sequence[str], *, from_failed: bool, and_descendants: bool) -> None:
    if from_failed and names:
        raise BadRequestError(
            "say either --from-failed or --task", code="invalidRestart", hint="--task names what is to run again"
        )
    if and_descendants and not names:
        raise BadRequestError(
            "--and-descendants goes with --task",
            code="invalidRestart",
            hint="--from-failed takes what depends on the failed tasks anyway",
        )
