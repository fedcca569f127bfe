"""`runstream directrun start` and `runstream project run create`: runs of commits."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.config_inputs import Paths, Texts, pairs, read_files
from runstream.cli.connection import find_service, global_options, program_command
from runstream.cli.near_names import near_names, paths_near
from runstream.cli.output import say, warn
from runstream.cli.project_commands import NO_PROJECT, ProjectRef
from runstream.cli.watching import until_listed
from runstream.client import Client, CommitChoice, NewDirectRun
from runstream.counting import listed
from runstream.errors import BadRequestError
from runstream.git.save import SavedTree, push_saved, save_working_tree
from runstream.ids import new_id
from runstream.runconfig.variables import read_inputs

_DEFAULT_BRANCH = "master"
_SHOWN = 5


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RefOptions:
    """The ref that the runs are for; at most one."""

    branch: str = ""
    """A branch."""
    tag: str = ""
    """A tag."""
    ref: str = ""
    """Another ref, such as refs/pull/7/head."""

    @property
    def given(self) -> int:
        """Number of options that are given."""
        return sum(map(bool, (self.branch, self.tag, self.ref)))

    @property
    def full_ref(self) -> str:
        """The full ref."""
        return self.ref or (f"refs/tags/{self.tag}" if self.tag else f"refs/heads/{self.branch}")


def start(
    *,
    untracked: bool = True,
    ignored: bool = False,
    choice: RefOptions = RefOptions(),
    pull_request_ref_regexes: Texts = None,
    var: Texts = None,
    var_file: Paths = None,
) -> int:
    """Push the working tree around you to the service, and create its runs. Index, HEAD and files stay as they are.

    Without --branch, --tag and --ref the runs are of branch master.

    Parameters
    ----------
    untracked
        Take untracked files along.
    ignored
        Take ignored files along, too.
    pull_request_ref_regexes
        A ref that is a pull request, as an RE2 expression whose first group is its id; repeatable.
    var
        A variable for from_variable, as NAME=VALUE; repeatable. It wins over files.
    var_file
        A file of variables, a map of texts in YAML or JSON; repeatable. A later file wins.
    """
    if choice.given > 1:
        raise BadRequestError("give only one of --branch, --tag and --ref", code="invalidRef")
    wanted = choice if choice.given else RefOptions(branch=_DEFAULT_BRANCH)
    found = read_inputs(pairs(var or (), "--var"), read_files(var_file), ())
    variables = {one.name: one.text for one in reversed(found.variables) if one.text is not None}
    saved = save_working_tree(Path.cwd(), untracked=untracked, ignored=ignored)
    if saved.nested:
        warn(f"nested repositories are not saved with their files: {listed(saved.nested, _SHOWN)}")

    async def work(client: Client) -> None:
        user = await client.users.current()
        path = f"{user.id}/{saved.clone_id}"
        await asyncio.to_thread(_push, saved, path, wanted.full_ref)
        await client.users.create_direct_runs(
            NewDirectRun(
                repo_uuid=saved.clone_id,
                repo_path=path,
                branch=wanted.branch,
                tag=wanted.tag,
                ref=wanted.ref,
                commit_sha=saved.commit,
                message=saved.message,
                pull_request_ref_regexes=tuple(pull_request_ref_regexes or ()),
                variables=variables,
            ),
            idempotency_key=new_id(),
        )
        await until_listed(client)
        say(f"the runs of {wanted.full_ref} are created: {program_command()} run list --username {user.username}")

    return with_client(work)


def _push(saved: SavedTree, path: str, ref: str) -> None:
    service = find_service(global_options(), os.environ)
    push_saved(saved, f"{service.url.rstrip('/')}/repos/{path}.git", ref, username="git", password=service.token)


def create_project_runs(
    *,
    project: ProjectRef,
    choice: RefOptions = RefOptions(),
    commit_sha: Annotated[str, Parameter(help="Another commit than the ref's, or the beginning of its id.")] = "",
    cache_group: Annotated[
        str, Parameter(help="Use the caches of this project or user, such as /project/ID. Default: the project's own.")
    ] = "",
) -> int:
    """Create the runs of a commit of a project's repository; without a ref, of the project's default branch."""
    if choice.given > 1:
        raise BadRequestError("give only one of --branch, --tag and --ref", code="invalidRef")

    async def work(client: Client) -> None:
        commit = CommitChoice(
            branch=choice.branch, tag=choice.tag, ref=choice.ref, commit_sha=commit_sha, cache_group=cache_group
        )
        async with near_names(project, NO_PROJECT, paths_near(client, project)):
            await client.projects.create_runs(project, commit, idempotency_key=new_id())
        await until_listed(client)
        of = choice.full_ref if choice.given else "the default branch"
        say(f"the runs of {of} are created: {program_command()} run list --project {project}")

    return with_client(work)
