"""`runstream run restart`: re-run a finished run, or some of its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from runstream.cli.config_files import read_config
from runstream.cli.finding import RunName, find_run, find_task
from runstream.cli.input_options import ConfigPath, InputOptions, Texts
from runstream.cli.output import Output, complain, print_json
from runstream.cli.pairs import pairs
from runstream.cli.running import with_client
from runstream.cli.watching import tell_created, watch_runs
from runstream.client import Client, Inputs, Restart
from runstream.errors import BadRequestError
from runstream.ids import new_id

Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AgainOptions:
    """Which tasks of the earlier run to re-run, and with which environment."""

    from_failed: Flag = False
    """Only what did not succeed, and what depends on it. Default: everything."""
    task: Texts = None
    """Only this task, also one that succeeded, by its name or id; repeatable."""
    and_descendants: Flag = False
    """With --task: what depends on these tasks, too. Without it, that keeps its outcome."""
    env: Texts = None
    """NAME=VALUE for all tasks, in place of those of the earlier run; repeatable."""

    @property
    def environment(self) -> dict[str, str] | None:
        """None for that of the earlier run. Raises BadRequestError for what is not NAME=VALUE."""
        return pairs(self.env, "--env") if self.env else None

    def require_one(self) -> None:
        """Raises BadRequestError for what goes not together."""
        if self.from_failed and self.task:
            raise BadRequestError(
                "say either --from-failed or --task", code="invalidRestart", hint="--task names what is to run again"
            )
        if self.and_descendants and not self.task:
            raise BadRequestError(
                "--and-descendants goes with --task",
                code="invalidRestart",
                hint="--from-failed takes what depends on the failed tasks anyway",
            )


def restart(
    run: RunName,
    /,
    *,
    again: AgainOptions = AgainOptions(),
    fresh: Flag = False,
    config: ConfigPath = None,
    given: InputOptions = InputOptions(),  # noqa: B008
    idempotency_key: str = "",
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    output: Output = "table",
) -> int:
    """Re-run a finished run, as a new run. Tasks that do not run again keep their outcome, logs and files.

    With --follow the exit code is 0 when it succeeded, 1 when it failed, 3 when it was stopped or cancelled.

    Parameters
    ----------
    fresh
        Resolve variables and secrets again, from the same file (--config) with other inputs (--var, --var-file,
        --secret-file). Default: as they were.
    config
        The configuration file. Default: the first that is found in .runstream or .agola.
    idempotency_key
        Any text of your choice: the same command with the same key gives the same run, and creates nothing again.
    follow
        Watch the run until it ends.
    output
        How to print the run.
    """
    again.require_one()
    inputs = _inputs(config, given, fresh=fresh)

    async def work(client: Client) -> int:
        earlier = await find_run(client, run)
        names = again.task or ()
        new = await client.runs.restart(
            earlier.id,
            from_start=not (again.from_failed or names),
            tasks=[find_task(earlier, name).name for name in names],
            descendants=again.and_descendants,
            environment=again.environment,
            fresh=inputs,
            idempotency_key=idempotency_key or new_id(),
        )
        if follow:
            return await watch_runs(client, [new])
        if output == "json":
            print_json(new)
        else:
            await tell_created(client, [await client.runs.get(new.id)] if idempotency_key else [new])
        return 0

    return with_client(work)


def what_again(restart: Restart) -> str:
    """What a restart runs again, in words."""
    if restart.scope == "all":
        return "all of it"
    if restart.scope == "failed":
        return "what did not succeed"
    return ", ".join(restart.tasks) + (" and what depends on it" if restart.descendants else "")


def _inputs(config: Path | None, given: InputOptions, *, fresh: bool) -> Inputs | None:
    if fresh:
        from runstream.runconfig import read_inputs

        for warning in read_inputs({}, (), given.secret_files).warnings:
            complain(f"warning: {warning}")
        return given.inputs(read_config(config, Path.cwd()))
    if config or given:
        raise BadRequestError(
            "--config, --var, --var-file and --secret-file go with --fresh",
            code="invalidRestart",
            hint="without --fresh, variables and secrets are those of the earlier run",
        )
    return None
